"""The two halves of a causal language model: the trunk that gives hidden states, and the head that scores tokens.

Only scored positions reach the head, and its logits are made in tiles: no (tokens × vocabulary) matrix is ever held.

Notation: B rows, T tokens of a row, N scored positions, E hidden width, V vocabulary, τ temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

__all__ = ["TokenScores", "can_run_headless", "inner_model", "score_targets", "trunk_states"]

_TILE_ENTRIES = 1 << 24  # logits held at once: 64 MiB in fp32
_PROBE_TOKENS = 4


@dataclass(frozen=True)
class TokenScores:
    """What a model thinks of N given tokens."""

    logprobs: Tensor  # (N,) fp32, nats, under softmax(logits / τ)
    correct: Tensor  # (N,) bool: the target is the likeliest token
    entropy: Tensor | None  # (N,) fp32, nats, of the predicted distribution; None when nobody asked


def inner_model(model: Any) -> Any:
    """The transformers model; under PEFT its layers carry the adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trunk_states(model: Any, **inputs: Any) -> Tensor:
    """Hidden states (B, T, E) before the head, without a cache."""
    states: Tensor = inner_model(model).base_model(use_cache=False, **inputs).last_hidden_state
    return states


def can_run_headless(model: Any) -> bool:
    """Whether head(hidden state) gives the model's own logits.

    Some architectures scale or cap the logits after the head; four tokens tell. There the whole model is run. A cap does
    nothing to logits near 0, such as a young model's, and would show only later: it is read from the configuration.
    """
    inner = inner_model(model)
    head = inner.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or inner.base_model is inner:
        return False
    if getattr(inner.config.get_text_config(), "final_logit_softcapping", None):
        return False
    device = model.get_input_embeddings().weight.device
    ids = torch.arange(_PROBE_TOKENS, device=device).remainder(head.weight.shape[0]).unsqueeze(0)
    mask = torch.ones_like(ids)
    modes = [module for module in model.modules() if module.training]
    model.eval()  # dropout would make the two passes differ
    try:
        with torch.no_grad():
            whole = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            apart = head(trunk_states(model, input_ids=ids, attention_mask=mask))
    finally:
        for module in modes:
            module.training = True
    return whole.shape == apart.shape and bool(
        torch.allclose(whole.float(), apart.float(), rtol=1e-4, atol=1e-5)
    )


def score_targets(
    model: Any,
    states: Tensor,
    targets: Tensor,
    *,
    headless: bool,
    temperature: float = 1.0,
    entropy: bool = False,
) -> TokenScores:
    """Score targets from what predicts them.

    Args:
        model: the model whose head is used; the head itself never gets a gradient.
        states: (N, E) hidden states when `headless`, else (N, V) logits of the whole model.
        targets: (N,) token ids.
        headless: see `can_run_headless`.
        temperature: logits are divided by it.
        entropy: whether to compute the entropy of every prediction.
    """
    if targets.numel() == 0:
        empty = states.new_zeros(0, dtype=torch.float32)
        return TokenScores(empty, empty.bool(), empty if entropy else None)
    if not headless:
        return _score_logits(states, targets, temperature, entropy)
    head = inner_model(model).get_output_embeddings()
    logprobs, correct, spread = _HeadScores.apply(
        states, head.weight.detach(), head.bias, targets, temperature, entropy
    )
    return TokenScores(logprobs, correct, spread if entropy else None)


def _score_logits(logits: Tensor, targets: Tensor, temperature: float, entropy: bool) -> TokenScores:
    logp = torch.log_softmax(logits.float() / temperature, dim=-1)
    chosen = logp.gather(-1, targets[:, None]).squeeze(-1)
    with torch.no_grad():
        spread = -(logp.exp() * logp).sum(-1) if entropy else None
        correct = logp.argmax(-1) == targets
    return TokenScores(chosen, correct, spread)


class _HeadScores(torch.autograd.Function):  # type: ignore[misc]
    """Log-probs of targets, with their whole derivative made in the forward pass.

    The derivative of a log-prob is one vector of width E per token, (onehot − p)·W / τ, whatever the loss does with the
    log-prob later. Keeping it instead of logits makes the backward pass a multiplication: the head's product is not
    taken a second time, and memory is N × E.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        entropy: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, width = states.shape[0], weight.shape[0]
        rows = max(1, _TILE_ENTRIES // width)
        needs_grad = ctx.needs_input_grad[0]
        # fp32 sums and results even of bf16 weights: a bf16 logit of 16 is off by .06
        full = weight.float()
        logprobs = states.new_empty(n, dtype=torch.float32)
        spread = states.new_empty(n if entropy else 0, dtype=torch.float32)
        correct = torch.empty(n, dtype=torch.bool, device=states.device)
        slopes = states.new_empty(states.shape if needs_grad else (0,), dtype=torch.float32)
        for start in range(0, n, rows):
            tile = slice(start, start + rows)
            target = targets[tile, None]
            logits = linear(states[tile].float(), full, None if bias is None else bias.float())
            if temperature != 1.0:
                logits /= temperature
            at_target = logits.gather(1, target)
            top = logits.amax(1, keepdim=True)
            correct[tile] = (at_target >= top).squeeze(1)
            below = logits.sub_(top)
            p = below.exp() if entropy else below.exp_()  # of the likeliest token: 1
            total = p.sum(1, keepdim=True)
            logprobs[tile] = (at_target - top - total.log()).squeeze(1)
            if entropy:
                spread[tile] = (total.log() - (p * below).sum(1, keepdim=True) / total).squeeze(1)
            if needs_grad:
                mean = (p.to(weight.dtype) @ weight).float() / total  # (rows, E): Σ p W
                slopes[tile] = (full[target.squeeze(1)] - mean) / temperature
        ctx.save_for_backward(slopes)
        ctx.dtype = states.dtype
        ctx.mark_non_differentiable(correct, spread)
        return logprobs, correct, spread

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (slopes * grad[:, None]).to(ctx.dtype), None, None, None, None, None
