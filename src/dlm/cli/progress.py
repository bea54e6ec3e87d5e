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

from dlm.cli.briefing import briefing_items, finding_lines, phase_line
from dlm.cli.output import Output, duration, is_terminal, pair_lines, terminal_width

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.status import Status

    from dlm.workflow.views import Briefing

__all__ = ["NoProgress", "TrainProgress", "is_follower"]

PLAIN_LINES = 20  # about as many as a run prints where stderr is no terminal
ROOMY = 90  # columns that the live line takes with everything in it

_ALL_TIE = 1 - 1e-6  # a share summed from micro-batches may miss 1 by its rounding

_HELD_OUT = {
    "full_valid_mean_reward": "mean reward of held-out prompts",
    "val_pref_acc": "held-out pairs ranked right",
    "valid_loss": "validation loss",
    "sft_valid_loss": "loss of held-out questions",
    "probe_loss": "probe loss",
}


def is_follower() -> bool:
    """Whether torchrun or accelerate started this process beside another one, which speaks for all of them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0"


class NoProgress:
    """A `TrainView` that shows nothing."""

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def briefing(self, briefing: Briefing) -> None: ...
    def step(self, step: int, total: int, values: Mapping[str, float]) -> None: ...
    def checkpoint(self, step: int) -> None: ...
    def stopping(self) -> None: ...


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
        self._output.note(f"run {briefing.run_id}: {phase_line(briefing)}{start}")
        for line in pair_lines(briefing_items(briefing), terminal_width(sys.stderr)):
            self._output.note(line)
        preflight = briefing.preflight
        for level, line in finding_lines(briefing.findings):
            self.warn(line) if level == "warning" else self.note(line)
        for line in preflight.notes:
            self.note(line)
        for place, token in preflight.special_tokens:
            self.warn(
                f"{place}: the text spells the control token {token}; it is encoded as plain characters"
            )
        self._first_step = briefing.resumed_at
        self._timed_from = None
        self._next_line = 1
        if self._live:
            self._start_bar(preflight.plan.total_steps)

    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """One optimiser step done."""
        text = self._describe(step, total, values)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, text=text)
            held_out = _held_out(values)
            if held_out:
                self._output.note(f"step {step}: {held_out}")
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
        if "train_answers" in values:  # a round of answers: its loss says nothing
            parts = [_earned(values)]
            if not self._narrow:
                parts.append(f"{values['completion_tokens_mean']:.0f} tokens an answer")
        else:
            parts = [f"loss {values['train_loss']:.4f}"] if "train_loss" in values else []
        if "rewards/accuracies" in values:
            parts.append(_ranked(values))
            if not self._narrow:
                parts.append(f"margin {values['rewards/margins']:.3f}")
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


def _ranked(values: Mapping[str, float]) -> str:
    """The share of a step's pairs that are ranked right, beside that of ties: a model that ranks none is not wrong."""
    right, ties = values["rewards/accuracies"], values.get("rewards/ties", 0.0)
    if ties > _ALL_TIE:
        return "all pairs tie"
    return f"ranked right {right:.2f}" + (f" ({ties:.0%} ties)" if ties else "")


def _earned(values: Mapping[str, float]) -> str:
    """What a round's answers earned; and what is wrong with some of them, where something is."""
    text = (
        f"reward {values['train_mean_reward']:.3f}"
        if "train_mean_reward" in values
        else "no answer was graded"
    )
    if "train_loss" not in values:
        text += " (no group has spread: nothing to learn)"
    wrong = {
        "cut off": values["train_truncated_count"],
        "not parsed": values["train_sample_parse_error_count"],
        "grader errors": values["train_other_error_count"],
    }
    told = ", ".join(f"{count:.0f} {what}" for what, count in wrong.items() if count)
    return text + (f" ({told} of {values['train_answers']:.0f})" if told else "")


def _held_out(values: Mapping[str, float]) -> str:
    """The held-out metrics that a person watches, as far as they were measured at this step."""
    return "  ".join(
        "held-out pairs all tie"
        if name == "val_pref_acc" and values.get("val_pref_ties", 0.0) > _ALL_TIE
        else f"{label} {values[name]:.4f}"
        for name, label in _HELD_OUT.items()
        if name in values
    )
