"""Sampling as mining does it, against the library's `generate` called question by question.

100 questions × 4 samples × 120 tokens on the embedded base, one process and the same threads for both, rounds
interleaved. Nobody may end early, so that both write the same number of tokens; a second row lets answers end where
they end, as mining does. First, greedy answers must be the very same tokens on both sides.

    python bench/sampling.py [--rounds N] [--questions N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from report import write_report

from dlm.bases import resolve_base
from dlm.model import Policy, Settings, load_policy, sample
from dlm.tasks import style

SAMPLES, TOKENS = 4, 120


def questions(count: int) -> list[str]:
    """Different questions of the style tasks: about short documents, and for advice."""
    found: dict[str, None] = {}
    for case in style.generate(seed=0, count=10 * count, split="train"):
        found.setdefault(case.question)
    return list(found)[:count]


@contextmanager
def endless(policy: Policy) -> Iterator[Policy]:
    """Both sides write on to the last token: no token ends an answer."""
    configuration, ends = policy.model.generation_config, policy.chat.stop_ids
    kept = configuration.eos_token_id
    configuration.eos_token_id, policy.chat.stop_ids = None, frozenset()
    try:
        yield policy
    finally:
        configuration.eos_token_id, policy.chat.stop_ids = kept, ends


def generated(policy: Policy, prompts: Sequence[Sequence[int]], **options: Any) -> list[list[list[int]]]:
    """The library's answers, a list of token lists for each prompt; padding is cut off after the end token."""
    ends = sorted(policy.chat.stop_ids)
    answers = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])
        with torch.inference_mode():
            rows = policy.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=TOKENS,
                eos_token_id=ends or None,
                pad_token_id=policy.tokenizer.pad_token_id,
                **options,
            )
        answers.append([_to_the_end(row[ids.shape[1] :].tolist(), ends) for row in rows])
    return answers


def _to_the_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    last = next((place for place, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: last + 1]


def ours(policy: Policy, prompts: Sequence[Sequence[int]]) -> int:
    rows = [prompt for prompt in prompts for _ in range(SAMPLES)]
    answers = sample(policy, rows, Settings(max_new_tokens=TOKENS), range(len(rows)))
    return sum(len(answer.ids) for answer in answers)


def theirs(policy: Policy, prompts: Sequence[Sequence[int]]) -> int:
    torch.manual_seed(0)
    options = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    answers = generated(policy, prompts, num_return_sequences=SAMPLES, **options)
    return sum(len(row) for rows in answers for row in rows)


def same_when_greedy(policy: Policy, prompts: Sequence[Sequence[int]]) -> int:
    """How many questions have the very same greedy answer on both sides."""
    mine = sample(policy, prompts, Settings(temperature=0, max_new_tokens=TOKENS), range(len(prompts)))
    library = generated(policy, prompts, do_sample=False)
    return sum(list(answer.ids) == rows[0] for answer, rows in zip(mine, library, strict=True))


def speed(call: Callable[[], int]) -> dict[str, float]:
    """Tokens per second of this process's own time and of the clock."""
    wall, own = time.perf_counter(), time.process_time()
    tokens = call()
    return {"cpu": tokens / (time.process_time() - own), "wall": tokens / (time.perf_counter() - wall)}


def compare(
    policy: Policy, prompts: Sequence[Sequence[int]], rounds: int, name: str
) -> dict[str, str | float]:
    mine, library = [], []
    for _ in range(rounds):
        library.append(speed(lambda: theirs(policy, prompts)))
        mine.append(speed(lambda: ours(policy, prompts)))
    row: dict[str, str | float] = {"answers": name}
    for clock in ("cpu", "wall"):
        row[f"generate_tokens_per_{clock}_s"] = median(one[clock] for one in library)
        row[f"sampler_tokens_per_{clock}_s"] = median(one[clock] for one in mine)
        ratios = [a[clock] / b[clock] for a, b in zip(mine, library, strict=True)]
        row[f"ratio_{clock}"] = median(ratios)
        row[f"ratio_{clock}_least"] = min(ratios)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=100)
    asked = parser.parse_args()
    policy = load_policy(resolve_base("pocket"), device="cpu")
    prompts = [policy.chat.prompt_ids(question) for question in questions(asked.questions)]
    same = same_when_greedy(policy, prompts)
    print(f"greedy answers equal: {same} of {len(prompts)}")
    if same < len(prompts):
        raise SystemExit("greedy answers differ: the speed of another distribution is worth nothing")
    ours(policy, prompts[:4])  # the choice of products is made once
    with endless(policy) as unending:
        rows = [compare(unending, prompts, asked.rounds, f"{TOKENS} tokens each")]
    rows.append(compare(policy, prompts, asked.rounds, "to their end"))
    write_report(
        "sampling", rows, rounds=asked.rounds, questions=len(prompts), samples=SAMPLES,
        max_new_tokens=TOKENS, threads=torch.get_num_threads(), greedy_equal=same,
    )  # fmt: skip


if __name__ == "__main__":
    main()
