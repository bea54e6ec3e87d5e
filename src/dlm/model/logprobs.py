"""What a model thinks of given completions, token by token in fp32, without a (tokens × vocabulary) matrix.

Notation: B rows, L positions of the longest, P prompt and C completion tokens of a row, S scored positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dlm.errors import UsageError
from dlm.model.head import TokenScores, can_run_headless, score_targets, trunk_states

__all__ = ["completion_logprobs", "completion_scores"]

_BATCH_TOKENS = 8192  # padded tokens of one pass

TokenRow = tuple[Sequence[int], Sequence[int]]


def completion_logprobs(
    model: Any, rows: Sequence[TokenRow], temperature: float = 1.0, *, batch_tokens: int = _BATCH_TOKENS
) -> list[torch.Tensor]:
    """The log-probability of every completion token given what stands before it.

    Computed with the model as it is: switch dropout off (`model.eval()`) unless it is wanted.

    Args:
        model: a causal language model of transformers, or a PeftModel around one.
        rows: (prompt ids, completion ids); prompts have at least one token.
        temperature: logits are divided by it, as the sampler divides them.
        batch_tokens: padded tokens per forward pass.

    Returns:
        One (C,) fp32 tensor per row on the model's device, under softmax(logits / T) over the whole vocabulary.

    Raises:
        UsageError: an empty prompt, or a temperature that is not above 0.
    """
    scores = completion_scores(model, rows, temperature, batch_tokens=batch_tokens)
    return [one.logprobs for one in scores]


def completion_scores(
    model: Any, rows: Sequence[TokenRow], temperature: float = 1.0, *, batch_tokens: int = _BATCH_TOKENS
) -> list[TokenScores]:
    """As `completion_logprobs`, and of every token whether it is the likeliest one: a completion all of whose tokens are is
    what greedy decoding gives (near ties aside).

    Returns:
        One `TokenScores` of (C,) tensors per row, without entropies.

    Raises:
        UsageError: an empty prompt, or a temperature that is not above 0.
    """
    if temperature <= 0:
        raise UsageError("log-probabilities need a temperature above 0", found=str(temperature))
    if any(not prompt for prompt, _ in rows):
        raise UsageError("a completion's first token needs a prompt before it", found="an empty prompt")
    results: dict[int, TokenScores] = {}
    with torch.no_grad():
        headless = can_run_headless(model)
        for batch in _batches(rows, batch_tokens):
            scored = _score(model, [rows[place] for place in batch], temperature, headless)
            for place, values in zip(batch, scored, strict=True):
                results[place] = values
    return [results[place] for place in range(len(rows))]


def _batches(rows: Sequence[TokenRow], batch_tokens: int) -> Iterator[list[int]]:
    """Places of rows, longest first, in batches whose padded size stays within `batch_tokens`."""
    order = sorted(range(len(rows)), key=lambda place: -sum(map(len, rows[place])))
    while order:
        longest = sum(map(len, rows[order[0]]))
        count = max(1, batch_tokens // longest)
        yield order[:count]
        order = order[count:]


def _score(model: Any, rows: Sequence[TokenRow], temperature: float, headless: bool) -> list[TokenScores]:
    device = model.get_input_embeddings().weight.device
    texts = [[*prompt, *completion] for prompt, completion in rows]
    longest = max(map(len, texts))
    # Padded on the right, where causal attention never looks: any token will do, and positions need no care.
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device=device)  # (B, L)
    mask = torch.tensor(
        [[1] * len(text) + [0] * (longest - len(text)) for text in texts], device=device
    )  # (B, L)
    counts = [len(completion) for _, completion in rows]
    row_of = torch.tensor(
        [row for row, count in enumerate(counts) for _ in range(count)], dtype=torch.long, device=device
    )
    # the token at position t is predicted from position t − 1
    before = [len(prompt) - 1 + offset for prompt, completion in rows for offset in range(len(completion))]
    position_of = torch.tensor(before, dtype=torch.long, device=device)  # (S,)
    targets = ids[row_of, position_of + 1]  # (S,)
    inputs = {"input_ids": ids, "attention_mask": mask}
    states = trunk_states(model, **inputs) if headless else model(**inputs, use_cache=False).logits
    scores = score_targets(
        model, states[row_of, position_of], targets, headless=headless, temperature=temperature
    )
    parts = zip(scores.logprobs.split(counts), scores.correct.split(counts), strict=True)
    return [TokenScores(logprobs, correct, None) for logprobs, correct in parts]
