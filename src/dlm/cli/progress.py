"""How a training looks: a pre-flight table, a live line, and plain lines where nobody watches.

Everything here goes to stderr, so that stdout holds the result alone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from dlm.cli.output import Output, clean, duration, is_terminal, pair_lines, plural, terminal_width

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.status import Status

    from dlm.training import Preflight
    from dlm.workflow.train import Briefing

__all__ = ["TrainProgress", "briefing_items"]

PLAIN_LINES = 20  # about as many as a run prints where stderr is no terminal
ROOMY = 70  # columns that the live line takes with everything in it


class TrainProgress:
    """A `TrainView` for people; a context manager, so that the live display always ends."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._live = is_terminal(sys.stderr)
        self._console: Console | None = None
        self._status: Status | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._narrow = False  # a terminal without room for everything in one line
        self._first_step = 0  # the step this invocation starts after: a resumed run must not flatter its ETA
        # Step and time that the ETA counts from: the end of the first step, which also pays for memory and kernels.
        self._timed_from: tuple[int, float] | None = None
        self._next_line = 1

    def __enter__(self) -> TrainProgress:
        if self._live:
            from rich.console import Console

            self._console = console = Console(stderr=True, highlight=False)
            self._narrow = console.width < ROOMY
            self._wait("loading the libraries and the base …")
            self._output.aside = lambda text: _print_above(console, text)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_live()

    def note(self, text: str) -> None:
        """A remark above the live line."""
        self._output.note(text)

    def warn(self, text: str) -> None:
        """A warning above the live line; it is also in the `warnings` of `--json`."""
        self._output.warn(text)

    def briefing(self, briefing: Briefing) -> None:
        """The pre-flight table, and the start of the clock."""
        self._end_live()
        start = f", going on after step {briefing.resumed_at}" if briefing.resumed_at else ""
        self._output.note(f"run {briefing.run_id}{start}")
        for line in pair_lines(briefing_items(briefing), terminal_width(sys.stderr)):
            self._output.note(line)
        preflight = briefing.preflight
        for skipped in preflight.skipped:
            self.warn(f"left out: {skipped.row.place}: {skipped.reason}")
        for place, token in preflight.special_tokens:
            self.warn(
                f"{place}: the text spells the control token {token}; it is encoded as plain characters"
            )
        self._first_step = briefing.resumed_at
        self._timed_from = None
        if self._live:
            self._start_bar(preflight.plan.total_steps)

    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """One optimiser step done."""
        text = self._describe(step, total, values)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, text=text)
            if "valid_loss" in values:
                self._output.note(f"step {step}: {_held_out(values)}")
            if step == total:
                self._end_live()
                self._wait("asking the probes and keeping the version …")
        elif step >= self._next_line or step == total:
            held_out = _held_out(values)
            self._output.note(f"step {step}/{total}  {text}" + (f"  {held_out}" if held_out else ""))
            self._next_line = step + max(1, total // PLAIN_LINES)

    def checkpoint(self, step: int) -> None:
        """A checkpoint is safe on disk. Nothing to say: an interrupted run names the step it goes on from."""

    def stopping(self) -> None:
        """Called from a signal handler: one unbuffered write, whatever the live line is doing."""
        os.write(
            2,
            b"\nstopping as soon as the step in hand is done; what is trained so far is kept;\n"
            b"Ctrl-C again ends at once\n",
        )

    def _describe(self, step: int, total: int, values: Mapping[str, float]) -> str:
        parts = [f"loss {values['train_loss']:.4f}"] if "train_loss" in values else []
        if "tokens_per_second" in values and not self._narrow:
            parts.append(f"{values['tokens_per_second']:,.0f} tokens/s")
        now = time.monotonic()
        if self._timed_from is None:
            self._timed_from = (step, now)
        elif step < total:
            first, began = self._timed_from
            parts.append(f"{duration((now - began) / max(step - first, 1) * (total - step))} left")
        return "  ".join(parts)

    def _wait(self, text: str) -> None:
        if self._console is not None:
            self._status = self._console.status(text)
            self._status.start()

    def _start_bar(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=max(1, min(30, self._console.width - 60 if self._console else 30))),
            TextColumn("{task.fields[text]}", markup=False),
            console=self._console,
        )
        self._task = self._bar.add_task("", total=total, completed=self._first_step, text="")
        self._bar.start()

    def _end_live(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None


def _print_above(console: Console, text: str) -> None:
    from rich.text import Text

    console.print(Text.from_ansi(text), soft_wrap=True)


def _held_out(values: Mapping[str, float]) -> str:
    parts = [
        f"{label} {values[name]:.4f}"
        for name, label in (("valid_loss", "validation loss"), ("probe_loss", "probe loss"))
        if name in values
    ]
    return "  ".join(parts)


def briefing_items(briefing: Briefing) -> dict[str, str]:
    """The pre-flight table: what the run is about to do, with the reason beside every automatic choice."""
    preflight, plan = briefing.preflight, briefing.preflight.plan
    sections = ", ".join(f"{count} {kind}" for kind, count in briefing.sections.items() if count)
    share = preflight.trainable_parameters / max(preflight.total_parameters, 1)
    items = {
        "document": f"{clean(str(briefing.document))}: sections {sections or 'none'}",
        "base": f"{briefing.base}, {preflight.total_parameters:,} parameters, "
        f"{preflight.trainable_parameters:,} trained ({share:.1%})",
        "device": f"{briefing.device.value} ({briefing.device.reason}), "
        f"{briefing.dtype.value} ({briefing.dtype.reason})"
        + (
            f", {plural(briefing.threads.value, 'thread')} ({briefing.threads.reason})"
            if briefing.device.value == "cpu"
            else ""
        ),
        "rows": _rows(preflight) + (f"\n{preflight.split_reason}" if preflight.split_reason else ""),
        "tokens": f"{preflight.tokens_min:,} to {preflight.tokens_max:,} in a row, median "
        f"{preflight.tokens_median:,}, {preflight.tokens_total:,} in all; "
        f"room for {preflight.max_len.value:,} ({preflight.max_len.reason})",
        "steps": f"{plan.total_steps:,} of {plural(plan.rows_per_step, 'row')}: {_epochs(preflight.epochs.value)} "
        f"({preflight.epochs.reason}); micro-batch {preflight.micro.value} ({preflight.micro.reason})",
        "knobs": _knobs(briefing),
        "estimate": f"{duration(briefing.estimate.seconds)}, {briefing.estimate.peak_memory_mb:,.0f} MB of memory",
    }
    if preflight.split_prose:
        items["prose"] = (
            f"{plural(preflight.split_prose, 'text')} longer than the room: split into windows, nothing cut"
        )
    if preflight.skipped:
        items["left out"] = f"{plural(len(preflight.skipped), 'row')}, listed below"
    return items


def _rows(preflight: Preflight) -> str:
    """How many rows go where, without those that are left out."""
    counts = dict.fromkeys(("train", "validation", "probes"), 0) | dict(preflight.rows)
    skipped = [one.row for one in preflight.skipped]
    lost = sum(not row.probe for row in skipped)
    if lost and preflight.split_prose and counts["validation"]:
        # Texts were split into windows, so the number of examples does not tell which part lost its rows.
        return f"{_counts(counts)}; {len(skipped):,} of them left out"
    in_training = lost if preflight.split_prose else counts["train"] - preflight.plan.n_examples
    counts["train"] -= in_training
    counts["validation"] -= lost - in_training
    counts["probes"] -= len(skipped) - lost
    return _counts(counts) + (f"; {len(skipped):,} left out" if skipped else "")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _epochs(epochs: float) -> str:
    """`1 epoch`, `20 epochs`, `1.5 epochs`, `0.043 epochs`."""
    if epochs == int(epochs):
        return plural(int(epochs), "epoch")
    return f"{epochs:,.1f} epochs" if epochs >= 1 else f"{epochs:.2g} epochs"


def _knobs(briefing: Briefing) -> str:
    """The knobs that are not at their defaults, one a line, each with where its value comes from."""
    recipe, origins = briefing.resolved.recipe, briefing.resolved.origins
    shared, *others = set(origins.values())
    if not others and shared != "default":  # a resumed run has all its knobs from one place
        defaults = type(recipe).model_validate({})
        changed = [name for name in origins if getattr(recipe, name) != getattr(defaults, name)]
        return "\n".join([f"{shared}:", *(f"{name} {getattr(recipe, name)}" for name in changed)])
    settled = [
        f"{name} {getattr(recipe, name)}  ({why})" for name, why in origins.items() if why != "default"
    ]
    return "\n".join(settled) or "all at their defaults"
