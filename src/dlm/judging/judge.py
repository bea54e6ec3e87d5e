"""What a judge is: it gives a finite score to an answer, or says why it could not.

Scores of one judge are compared with one another and with nothing else; the greater is the better. A judge is named by a
spec, on the command line or by the document's `judge:`:

    sway                    the version's own preference, bootstrapped (see `contrast`)
    hf:<model>              a reward model: a folder, or a Hub name whose files are here already (see `reward_model`)
    cli:<command>           a command, started once for each answer (see `command`)
    cli-stream:<command>    a command that stays, one JSON line in and one out for each answer
    grader:<grader>         a grader of answers with a checkable task, such as grader:spreadsheet (see `dlm.grading`)

This module loads no torch; a judge that needs it is imported when it is made.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from dlm.errors import UsageError
from dlm.grading import Case, parse_grader

if TYPE_CHECKING:
    from dlm.bases import BaseSpec
    from dlm.model import Policy

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "FAILURES",
    "Anchor",
    "Failure",
    "Item",
    "Judge",
    "JudgeContext",
    "JudgeKind",
    "JudgeSpec",
    "Verdict",
    "check_judge",
    "make_judge",
    "parse_judge",
    "unreadable",
]

DEFAULT_TIMEOUT_S = 30.0

Failure = Literal["timed_out", "crashed", "malformed", "non_finite", "unscorable"]
FAILURES: tuple[Failure, ...] = ("timed_out", "crashed", "malformed", "non_finite", "unscorable")
"""Why one call of a judge gave no score: too slow; ended with an error or could not be started; answered something that
is no score; answered NaN or infinity; cannot score this answer whatever it tries (it is too long to be read)."""

JudgeKind = Literal["sway", "hf", "cli", "cli-stream", "grader"]
_FORMS = "sway, hf:<model>, cli:<command>, cli-stream:<command> or grader:<grader>"


@dataclass(frozen=True)
class Item:
    """One answer to be judged.

    `token_ids` are the answer's as they were sampled, the end token included; None where there are only characters. They
    need not be those that tokenising the text would give, and it is they that the version gave a probability to.
    """

    prompt: str
    candidate: str
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one answer: a finite score, or an error.

    Attributes:
        score: on the judge's own scale; None when it could give none.
        reasoning: the judge's words, where it has any.
        error: why there is no score, in words; None when there is one.
        seconds: all attempts together.
        failures: the kind of each attempt that failed, in order. A score that came at the second attempt has one.

    Raises:
        ValueError: both a score and an error, or neither; a score that is not finite.
    """

    score: float | None
    reasoning: str | None = None
    error: str | None = None
    seconds: float = 0.0
    failures: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        if (self.score is None) == (self.error is None):
            raise ValueError("a verdict has either a score or an error")
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"a score is a finite number, not {self.score}")
        if self.error is not None and not self.failures:
            object.__setattr__(self, "failures", ("unscorable",))

    @property
    def attempts(self) -> int:
        """How often the judge was asked: once, or twice where the first answer was none."""
        return len(self.failures) + (self.score is not None)


def unreadable(item: Item) -> str:
    """Why no model can read an answer or its prompt; "" when it can."""
    try:
        f"{item.prompt}{item.candidate}".encode()
    except UnicodeEncodeError:
        return "the text has a lone surrogate, which no UTF-8 text can hold"
    return ""


class Judge(Protocol):
    """Gives scores. A judge that asks something which may fail by chance asks a second time by itself.

    Properties:
        name: the spec as it was given; a mined section carries it as `judge_name`.
        default_threshold: the least difference of two scores that says that one answer is better.
        scale: what a score means, in a few words.
    """

    @property
    def name(self) -> str: ...
    @property
    def default_threshold(self) -> float: ...
    @property
    def scale(self) -> str: ...

    def score(self, items: Sequence[Item]) -> Iterator[Verdict]:
        """One verdict for each item, in order, each as soon as it is known; what fails for one is its verdict's error."""
        ...

    def close(self) -> None:
        """End what the judge has started. It may be called twice."""
        ...


@dataclass(frozen=True)
class Anchor:
    """An answer that the document itself calls good: an instruction's, or a preference's chosen one."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class JudgeContext:
    """What judges are made from; each takes what it needs.

    Attributes:
        policy: the version that was sampled, loaded with its adapter (sway).
        anchors: the document's own good answers (sway).
        base: the document's base, for a reward version that was trained on it (hf).
        device, precision: where a reward model computes, and in what type (hf).
        timeout_s: how long a command may take for one answer (cli, cli-stream).
        folder: where a command runs, and where a relative path to a model or a grader's file begins.
        cases: what is known of the right answer to a prompt, by the prompt (grader).
    """

    policy: Policy | None = None
    anchors: tuple[Anchor, ...] = ()
    base: BaseSpec | None = None
    device: str = "auto"
    precision: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    folder: Path = field(default_factory=Path.cwd)
    cases: Mapping[str, Case] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgeSpec:
    """A judge's name, taken apart. `text` is what was written; `target` is the model or command, "" for sway."""

    kind: JudgeKind
    target: str
    text: str

    @property
    def argv(self) -> tuple[str, ...]:
        """The command as its arguments, which no shell sees; empty for a judge that runs no command. For a grader, what a
        consent to its Python files is for."""
        if self.kind == "grader":
            return parse_grader(self.target).consent_argv
        return tuple(shlex.split(self.target)) if self.kind in ("cli", "cli-stream") else ()

    @property
    def runs_code(self) -> bool:
        """Whether it runs a program, so that a document that names it has to be asked about."""
        return bool(self.argv)


def parse_judge(text: str) -> JudgeSpec:
    """Take a judge's spec apart.

    Raises:
        UsageError: no such judge, or a command or model that is missing or cannot be read as one.
    """
    kind, colon, target = text.strip().partition(":")
    target = target.strip()
    if kind == "sway" and not colon:
        return JudgeSpec("sway", "", text.strip())
    if kind == "grader" and colon:
        return JudgeSpec("grader", target, f"grader:{parse_grader(target).text}")
    if kind not in ("hf", "cli", "cli-stream") or not colon:
        raise UsageError("no such judge", expected=_FORMS, found=repr(text), next_step="--judge sway")
    if not target:
        what = "a model's folder or name" if kind == "hf" else "a command"
        raise UsageError(f"the judge {kind}: names nothing", expected=f"{what} after the colon")
    spec = JudgeSpec(kind, target, f"{kind}:{target}")  # type: ignore[arg-type]
    try:
        _ = spec.argv
    except ValueError as error:
        raise UsageError(
            f"the judge's command cannot be read: {error}",
            expected="words as a shell would split them, quotes closed",
            found=target,
        ) from None
    return spec


def check_judge(spec: JudgeSpec, *, timeout_s: float, folder: Path) -> None:
    """Look whether what a spec names is there, and start and load nothing: what is wrong is said before the sampling.

    Raises:
        UsageError: the command's program is not there, or the timeout is no time.
        BaseModelError: the model is not on this machine, or is none that scores answers.
        GradingError: the grader's file is not there.
    """
    if spec.kind == "hf":
        from dlm.judging.reward_model import find_model
        from dlm.model import inspect_reward_model

        inspect_reward_model(find_model(spec.target, folder))
    elif spec.runs_code or spec.kind == "grader":
        make_judge(spec, JudgeContext(timeout_s=timeout_s, folder=folder)).close()


def make_judge(spec: str | JudgeSpec, context: JudgeContext) -> Judge:
    """Make the judge that a spec names. A command named by a document needs consent first (`dlm.store.Consents`).

    Raises:
        UsageError: no such judge, or the context lacks what it needs.
        BaseModelError: a model that cannot be loaded.
    """
    found = parse_judge(spec) if isinstance(spec, str) else spec
    if found.kind == "sway":
        from dlm.judging.contrast import ContrastJudge

        return ContrastJudge.of(context)
    if found.kind == "hf":
        from dlm.judging.reward_model import RewardModelJudge

        return RewardModelJudge.load(found, context)
    if found.kind == "grader":
        from dlm.judging.grading import GraderJudge

        return GraderJudge(found, context)
    from dlm.judging.command import CommandJudge, StreamJudge

    kind = CommandJudge if found.kind == "cli" else StreamJudge
    return kind(found, timeout_s=context.timeout_s, folder=context.folder)
