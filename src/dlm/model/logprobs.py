"""Log-probabilities of given completions, in fp32, without a (tokens × vocabulary) matrix.

Notation: B rows, L positions of the longest, P prompt and C completion tokens of a row, S scored positions, E hidden
width, V vocabulary, T temperature.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dlm.errors import UsageError

__all__ = ["completion_logprobs"]

_BATCH_TOKENS = 8192  # padded tokens of one pass
_TILE_ENTRIES = 1 << 24  # logits held at once: 64 MiB in fp32
_PROBE_TOKENS = 4

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
    if temperature <= 0:
        raise UsageError("log-probabilities need a temperature above 0", found=str(temperature))
    if any(not prompt for prompt, _ in rows):
        raise UsageError("a completion's first token needs a prompt before it", found="an empty prompt")
    results: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    with torch.no_grad():
        headless = _can_run_headless(model)
        for batch in _batches(rows, batch_tokens):
            scored = _score(model, [rows[place] for place in batch], temperature, headless)
            for place, values in zip(batch, scored, strict=True):
                results[place] = values
    return results


def _batches(rows: Sequence[TokenRow], batch_tokens: int) -> Iterator[list[int]]:
    """Places of rows, longest first, in batches whose padded size stays within `batch_tokens`."""
    order = sorted(range(len(rows)), key=lambda place: -sum(map(len, rows[place])))
    while order:
        longest = sum(map(len, rows[order[0]]))
        count = max(1, batch_tokens // longest)
        yield order[:count]
        order = order[count:]


def _score(model: Any, rows: Sequence[TokenRow], temperature: float, headless: bool) -> list[torch.Tensor]:
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
    if headless:
        inner = _inner(model)
        hidden = inner.base_model(
            input_ids=ids, attention_mask=mask, use_cache=False
        ).last_hidden_state  # (B, L, E)
        scored = hidden[row_of, position_of]  # (S, E)
        head = inner.get_output_embeddings()
        width = head.weight.shape[0]
    else:
        scored = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[
            row_of, position_of
        ]  # (S, V)
        head, width = None, scored.shape[-1]
    tile = max(1, _TILE_ENTRIES // width)
    parts = []
    for part, target in zip(scored.split(tile), targets.split(tile), strict=True):
        logits = (part if head is None else head(part)).float() / temperature  # (tile, V)
        parts.append(logits.gather(1, target.unsqueeze(1)).squeeze(1) - logits.logsumexp(1))
    return (
        list(torch.cat(parts).split(counts))
        if parts
        else [scored.new_empty(0, dtype=torch.float32) for _ in rows]
    )


def _inner(model: Any) -> Any:
    """The transformers model; under PEFT its layers carry the adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _can_run_headless(model: Any) -> bool:
    """Whether head(hidden state) gives the model's own logits.

    Some architectures scale or cap the logits after the head; four tokens tell. There the whole model is run.
    """
    inner = _inner(model)
    head = inner.get_output_embeddings()
    if head is None or inner.base_model is inner:
        return False
    device = model.get_input_embeddings().weight.device
    ids = torch.arange(_PROBE_TOKENS, device=device).remainder(head.weight.shape[0]).unsqueeze(0)
    mask = torch.ones_like(ids)
    modes = [module for module in model.modules() if module.training]
    model.eval()  # dropout would make the two passes differ
    try:
        whole = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        apart = head(inner.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state)
    finally:
        for module in modes:
            module.training = True
    return whole.shape == apart.shape and bool(
        torch.allclose(whole.float(), apart.float(), rtol=1e-4, atol=1e-5)
    )
