"""Short checks of a model while it trains, and the batched generation that they and the measurement share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from dlm.tasks import spreadsheet, style
from tools.pocket.corpus import FIRST_EVALUATION_SEED

__all__ = ["generate", "probe", "prompt_ids"]

PROBE_SEED = FIRST_EVALUATION_SEED + 99


def prompt_ids(tokenizer: Tokenizer, user: str, system: str | None = None) -> list[int]:
    """The ids of a chat prompt as the template writes it, up to where the assistant speaks."""
    parts = (
        "<|bos|>"
        + (f"<|system|>\n{system}<|end|>\n" if system else "")
        + f"<|user|>\n{user}<|end|>\n<|assistant|>\n"
    )
    return list(tokenizer.encode(parts).ids)


@torch.inference_mode()
def generate(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    batch: int = 48,
) -> list[str]:
    """One answer per prompt; greedy at temperature 0. Prompts of like length share a batch."""
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    answers = [""] * len(prompts)
    pad = model.config.pad_token_id
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        width = max(len(prompts[at]) for at in chosen)
        ids = torch.tensor([[pad] * (width - len(prompts[at])) + prompts[at] for at in chosen])
        room = min(max_new_tokens, model.config.max_position_embeddings - width)
        sampling = (
            {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            if temperature
            else {"do_sample": False}
        )
        out = model.generate(
            input_ids=ids, attention_mask=(ids != pad).long(), max_new_tokens=room, **sampling
        )
        for at, row in zip(chosen, out[:, width:].tolist(), strict=True):
            end = row.index(model.config.eos_token_id) if model.config.eos_token_id in row else len(row)
            answers[at] = tokenizer.decode(row[:end], skip_special_tokens=False)
    return answers


def probe(model: LlamaForCausalLM, tokenizer: Tokenizer, long_tables: bool) -> dict[str, float]:
    """A quick look at every ability; few cases, so only good for seeing where training stands."""
    scores: dict[str, float] = {}
    for name, rows, count, budget in (("rows_8_12", (8, 12), 24, 260), ("rows_30", (30, 30), 8, 620)):
        if name == "rows_30" and not long_tables:
            continue
        tables = spreadsheet.generate(PROBE_SEED, count, rows)
        answers = generate(model, tokenizer, [prompt_ids(tokenizer, case.prompt) for case in tables], budget)
        matches = [spreadsheet.match_rows(case, text) for case, text in zip(tables, answers, strict=True)]
        scores[name] = sum(match.preservation for match in matches) / count
        scores[f"{name}_exact"] = sum(match.exact for match in matches) / count
    for kind, count in (("fact", 48), ("advice", 36), ("refusal", 24)):
        cases = style.generate(PROBE_SEED, count, (kind,))
        prompts = [prompt_ids(tokenizer, case.question) for case in cases]
        greedy = generate(model, tokenizer, prompts, 70)
        warm = generate(model, tokenizer, prompts, 70, temperature=1.0)
        right = style.fact_right if kind == "fact" else style.on_topic
        scores[kind] = sum(map(right, cases, greedy)) / count
        scores[f"{kind}_sampled"] = sum(map(right, cases, warm)) / count
        scores[f"{kind}_brief_sampled"] = sum(map(style.is_brief, warm)) / count
    return {name: round(value, 3) for name, value in scores.items()}
