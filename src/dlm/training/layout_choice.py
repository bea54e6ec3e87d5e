"""Which layout a run uses: the fastest one that this base computes right.

Layouts other than the plain one ask an architecture for exact positions and masks. Two rows tell whether it gives the
plain layout's numbers, and what a forward and backward pass costs; what does not hold is left out and said.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from dlm.errors import DlmError, UsageError
from dlm.model import can_run_headless, inner_model
from dlm.recipe import Choice
from dlm.training.layout import LAYOUT_NAMES, Layout, Tree

__all__ = ["choose_layout"]

_TOLERANCE = {torch.float32: 1e-4}  # nats per token
_TOLERANCE_REDUCED = 0.1  # bf16 keeps 8 bits: a log-prob of 10 nats is good to .04
_ATTENTION_DROPOUT = ("attention_dropout", "attn_pdrop")  # as configurations name it
_WORTH_TRYING = 1.1  # times the fewest positions of any layout


def choose_layout(
    model: Any,
    rows: Sequence[Tree],
    pad_id: int | None,
    device: str,
    *,
    wanted: str = "auto",
    embedding_noise: bool = False,
) -> Choice[Layout]:
    """The layout for a run over rows like these; the model's gradients are cleared.

    Args:
        model: ready to train; products and kernels as they will be in the run.
        rows: the run's rows; the two that stand for them are its median and its longest.
        wanted: a layout's name, or auto.
        embedding_noise: whether NEFTune is on, whose scale is that of a row by itself.

    Raises:
        UsageError: a layout was named, and this base does not compute it right.
    """
    headless = can_run_headless(model)
    plain = Layout("plain", 0 if pad_id is None else pad_id, device, headless)
    head_note = "" if headless else "; this base scores every position, since it does more after its head"
    if wanted == "plain":
        return Choice(plain, f"as set{head_note}")
    others = [Layout(name, plain.pad_id, device, headless) for name in LAYOUT_NAMES if name != "plain"]
    if wanted != "auto":
        others = [layout for layout in others if layout.name == wanted]
    sample = _sample(rows)
    faults = {layout.name: _fault(model, plain, layout, sample, embedding_noise) for layout in others}
    sound = [layout for layout in others if not faults[layout.name]]
    refused = [
        f"{layout.name} does not fit: {faults[layout.name]}" for layout in others if faults[layout.name]
    ]
    if wanted != "auto":
        if not sound:
            raise UsageError(
                f"the layout {wanted} does not fit: {faults[wanted]}", next_step="--set layout=auto, or plain"
            )
        return Choice(sound[0], f"as set{head_note}")
    if not sound:
        return Choice(plain, f"no other fits: {next(iter(faults.values()))}{head_note}")
    return _fastest(model, [plain, *sound], sample, "; ".join(["", *refused]) + head_note)


def _sample(rows: Sequence[Tree]) -> list[Tree]:
    by_size = sorted(rows, key=lambda row: len(row.prompt) + sum(map(len, row.branches)))
    return [by_size[len(by_size) // 2], by_size[-1]]


def _fault(model: Any, plain: Layout, layout: Layout, sample: Sequence[Tree], noise: bool) -> str:
    """Why a layout cannot be used with this model; empty when it can."""
    if noise:
        return "noise on the embeddings (neftune_alpha) is scaled by each row's own length"
    config = inner_model(model).config
    kinds = set(getattr(config, "layer_types", None) or [])
    if kinds - {"full_attention"} or (not kinds and getattr(config, "sliding_window", None)):
        return "this base has layers that do not attend to the whole row"
    if layout.name.startswith("packed") and any(getattr(config, name, 0) for name in _ATTENTION_DROPOUT):
        return "this base has dropout inside its attention"
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = plain.scores(model, sample).logprobs
            found = layout.scores(model, sample).logprobs
    except (DlmError, TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
        return f"this base does not take it ({str(error).partition(chr(10))[0]})"
    finally:
        model.train(training)
    reduced = next(model.parameters()).dtype != torch.float32
    limit = _TOLERANCE_REDUCED if reduced else _TOLERANCE[torch.float32]
    gap = float((expected - found).abs().max())
    return "" if gap <= limit else f"this base gives other log-probs in it (by {gap:.1e} nats)"


def _fastest(model: Any, layouts: Sequence[Layout], sample: Sequence[Tree], remarks: str) -> Choice[Layout]:
    """Measure what is worth measuring: a layout with many more positions than another cannot win."""
    positions = {layout.name: layout.positions(sample) for layout in layouts}
    fewest = min(positions.values())
    tried = [layout for layout in layouts if positions[layout.name] <= _WORTH_TRYING * fewest]
    seconds: dict[str, float] = {}
    training = model.training
    model.train()
    for layout in tried:
        seconds[layout.name] = _step_seconds(model, layout, sample)
    model.train(training)
    model.zero_grad(set_to_none=True)
    best = min(tried, key=lambda layout: seconds[layout.name])
    saved = 1 - positions[best.name] / positions["plain"]
    measured = ", ".join(f"{name} {1e3 * taken:.0f} ms" for name, taken in seconds.items())
    reason = f"{saved:.0%} fewer positions than plain; two rows forward and backward: {measured}"
    return Choice(best, f"{reason}{remarks}")


def _step_seconds(model: Any, layout: Layout, sample: Sequence[Tree], repeats: int = 2) -> float:
    """The shortest of `repeats` passes: what disturbs a measurement only adds to it."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        layout.scores(model, sample).logprobs.sum().backward()
        if layout.device.startswith("cuda"):
            torch.cuda.synchronize(layout.device)
        taken.append(time.perf_counter() - began)
    return min(taken)
