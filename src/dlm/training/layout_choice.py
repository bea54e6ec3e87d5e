"""Which layout a run uses: the fastest one that this base computes right.

Layouts other than the plain one ask an architecture for exact positions and masks. Two rows tell whether it gives the
plain layout's numbers, and what a forward and backward pass costs; what does not hold is left out and said. The trial is
kept small beside the run it is for: of long rows it reads one, and of a very long one as much as that takes, prompt and
answers cut in proportion. What attention costs shows in whole rows alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
_SHARE = 0.02  # of the run's tokens, for all timed passes together
_SHARE_FOR_A_ROW = 0.1  # of them, where a usual row is not read whole for less
_MOST = 2048  # tokens of a timed pass: more tell no more, and on a CPU take seconds each
_LEAST = 256  # of a warm-up, and of what is compared with the plain layout: at most twice this
_CLEARLY = 2.0  # times the fastest warm-up; below, the difference may be chance


@dataclass(frozen=True)
class _Cut:
    """A row made shorter, all of its parts in proportion."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]


def choose_layout(
    model: Any,
    rows: Sequence[Tree],
    pad_id: int | None,
    device: str,
    *,
    wanted: str = "auto",
    embedding_noise: bool = False,
    planned_rows: int | None = None,
) -> Choice[Layout]:
    """The layout for a run over rows like these; the model's gradients are cleared.

    Args:
        model: ready to train; products and kernels as they will be in the run.
        rows: the run's rows; the two that stand for them are its median and its longest.
        wanted: a layout's name, or auto.
        embedding_noise: whether NEFTune is on, whose scale is that of a row by itself.
        planned_rows: rows that the run will read, each as often as it does: the trial is to be small beside it. None: no
            one knows.

    Raises:
        UsageError: a layout was named, and this base does not compute it right.
    """
    headless = can_run_headless(model)
    plain = Layout("plain", 0 if pad_id is None else pad_id, device, headless)
    head_note = "" if headless else "; this base scores every position, since it does more after its head"
    if wanted == "plain":
        return Choice(plain, f"as set{head_note}")
    sharing = any(len(row.branches) > 1 for row in rows)
    names = [name for name in LAYOUT_NAMES if name != "plain"] if wanted == "auto" else [wanted]
    if wanted == "auto" and not sharing:
        names = [
            "packed"
        ]  # what has one answer shares nothing: the other two would be plain and packed again
    others = [Layout(name, plain.pad_id, device, headless) for name in names]
    whole = _sample(rows)
    faults = _faults(model, plain, others, _cut(whole, 2 * _LEAST), embedding_noise)
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
    timed = _timed(whole, _affordable(rows, planned_rows))
    return _fastest(model, [plain, *sound], whole, timed, "; ".join(["", *refused]) + head_note)


def _size(row: Tree) -> int:
    return len(row.prompt) + sum(map(len, row.branches))


def _sample(rows: Sequence[Tree]) -> list[Tree]:
    by_size = sorted(rows, key=_size)
    return [by_size[len(by_size) // 2], by_size[-1]]


def _affordable(rows: Sequence[Tree], planned_rows: int | None) -> int:
    """Tokens of a timed pass: few beside the run's, whichever layouts are timed."""
    if planned_rows is None:
        return _MOST
    usual = _size(_sample(rows)[0])
    each = planned_rows * sum(map(_size, rows)) / len(rows) / len(LAYOUT_NAMES)
    return max(_LEAST, min(_MOST, max(int(_SHARE * each), min(usual, int(_SHARE_FOR_A_ROW * each)))))


def _timed(sample: Sequence[Tree], most: int) -> list[Tree]:
    """Both rows where they have no more than `most` tokens together; else the usual one, whole or as large a part of it."""
    fits = sum(map(_size, sample)) <= most
    return list(sample) if fits else _cut(sample[:1], most)


def _cut(sample: Sequence[Tree], most: int) -> list[Tree]:
    """The rows, or, where they have more than `most` tokens together, as large a part of each piece."""
    scale = most / sum(map(_size, sample))
    if scale >= 1:
        return list(sample)

    def part(ids: tuple[int, ...]) -> tuple[int, ...]:
        return ids[: max(2, round(scale * len(ids)))]

    return [_Cut(part(row.prompt), tuple(map(part, row.branches))) for row in sample]


def _faults(
    model: Any, plain: Layout, layouts: Sequence[Layout], sample: Sequence[Tree], noise: bool
) -> dict[str, str]:
    """Why a layout cannot be used with this model, by name; empty where it can."""
    refused = {layout.name: _refused(model, layout, noise) for layout in layouts}
    if all(refused.values()):
        return refused
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = plain.scores(model, sample).logprobs
            return {
                layout.name: refused[layout.name] or _compared(model, layout, sample, expected)
                for layout in layouts
            }
    finally:
        model.train(training)


def _refused(model: Any, layout: Layout, noise: bool) -> str:
    """What the run or the base's configuration says against a layout; empty when nothing."""
    if noise:
        return "noise on the embeddings (neftune_alpha) is scaled by each row's own length"
    config = inner_model(model).config
    kinds = set(getattr(config, "layer_types", None) or [])
    if kinds - {"full_attention"} or (not kinds and getattr(config, "sliding_window", None)):
        return "this base has layers that do not attend to the whole row"
    if layout.name.startswith("packed") and any(getattr(config, name, 0) for name in _ATTENTION_DROPOUT):
        return "this base has dropout inside its attention"
    return ""


def _compared(model: Any, layout: Layout, sample: Sequence[Tree], expected: torch.Tensor) -> str:
    """How a layout's log-probs differ from the expected ones; empty when they do not."""
    try:
        found = layout.scores(model, sample).logprobs
    except (DlmError, TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
        return f"this base does not take it ({str(error).partition(chr(10))[0]})"
    reduced = next(model.parameters()).dtype != torch.float32
    limit = _TOLERANCE_REDUCED if reduced else _TOLERANCE[torch.float32]
    gap = float((expected - found).abs().max())
    return "" if gap <= limit else f"this base gives other log-probs in it (by {gap:.1e} nats)"


def _fastest(
    model: Any, layouts: Sequence[Layout], whole: Sequence[Tree], timed: Sequence[Tree], remarks: str
) -> Choice[Layout]:
    """Measure what is worth measuring: a layout with many more positions than another cannot win, nor can one that takes
    twice as long as another in a warm-up. Of rows as long as a warm-up the shorter of the two passes counts.

    Args:
        whole: the rows that stand for the run's.
        timed: they, or as much of them as may be timed.
    """
    positions = {layout.name: layout.positions(whole) for layout in layouts}
    fewest = min(positions.values())
    tried = [layout for layout in layouts if positions[layout.name] <= _WORTH_TRYING * fewest]
    warm = _cut(timed, _LEAST)
    seconds: dict[str, float] = {}
    if len(tried) > 1:
        training = model.training
        model.train()
        _pass_seconds(model, tried[0], warm)  # the first pass of all pays for memory and kernels
        warmed = {layout.name: _pass_seconds(model, layout, warm) for layout in tried}
        for layout in tried:
            if warmed[layout.name] > _CLEARLY * min(warmed.values()):
                continue
            seconds[layout.name] = _pass_seconds(model, layout, timed)
            if warm == timed:
                seconds[layout.name] = min(seconds[layout.name], warmed[layout.name])
        model.train(training)
        model.zero_grad(set_to_none=True)
    best = min(tried, key=lambda layout: seconds.get(layout.name, math.inf))
    reason = f"{1 - positions[best.name] / positions['plain']:.0%} fewer positions than plain"
    if len(tried) > 1:
        measured = ", ".join(f"{name} {1e3 * taken:.0f} ms" for name, taken in seconds.items())
        slower = [f"{layout.name} clearly slower" for layout in tried if layout.name not in seconds]
        what = "two rows" if timed == whole else f"{_tokens(timed):,} tokens"
        reason += f"; {what} forward and backward: {', '.join([measured, *slower])}"
    else:
        reason += f", and every other has over {_WORTH_TRYING - 1:.0%} more"
    return Choice(best, f"{reason}{remarks}")


def _tokens(rows: Sequence[Tree]) -> int:
    return sum(map(_size, rows))


def _pass_seconds(model: Any, layout: Layout, sample: Sequence[Tree]) -> float:
    """How long a pass forward and backward takes, in seconds: of the clock, or, where one thread computes, of that thread,
    which other work on the machine does not disturb."""
    on_cpu = layout.device.startswith("cpu")
    clock = time.process_time if on_cpu and torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    layout.scores(model, sample).logprobs.sum().backward()
    if layout.device.startswith("cuda"):
        torch.cuda.synchronize(layout.device)
    return clock() - began
