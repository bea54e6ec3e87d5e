"""How a grader is written: in a header's `evals`, on the command line, and behind `grader:` as a judge.

    spreadsheet                 the same as spreadsheet:strict
    spreadsheet:strict          rows by identity, units by cell, surplus rows cost (see `spreadsheet_strict`)
    spreadsheet:published       as the published study graded (see `spreadsheet_published`)
    string_check:OPERATION      eq, ne, like or ilike against the reference (see `text`)
    text_similarity[:METRIC]    fuzzy_match, levenshtein, jaro_winkler, token_sort or token_set
    length:LOW-HIGH [UNIT]      words (or characters, or lines) of the answer; LOW alone means at most LOW
    python:FILE                 `grade(sample, item) -> float` in a file beside the document (see `python_file`)

Several with weights make one: `0.7*spreadsheet + 0.3*length:1-400`. A part without a weight weighs 1.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dlm.errors import UsageError
from dlm.grading.grader import Grader
from dlm.grading.limits import Limits
from dlm.recipe import nearest

__all__ = ["GRADER_KINDS", "GraderKind", "GraderPart", "GraderSpec", "make_grader", "parse_grader"]

GraderKind = Literal["spreadsheet", "string_check", "text_similarity", "length", "python"]
GRADER_KINDS: Final[tuple[GraderKind, ...]] = (
    "spreadsheet",
    "string_check",
    "text_similarity",
    "length",
    "python",
)
_CHOICES: Final = {
    "spreadsheet": ("strict", "published"),
    "string_check": ("eq", "ne", "like", "ilike"),
    "text_similarity": ("fuzzy_match", "levenshtein", "jaro_winkler", "token_sort", "token_set"),
}
_DEFAULT: Final = {"spreadsheet": "strict", "text_similarity": "fuzzy_match"}
_LENGTH: Final = re.compile(r"(?:(\d+)\s*-\s*)?(\d+)(?:\s+(words|characters|lines))?")
_WEIGHT: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*\*\s*(.*)")
_FORMS: Final = (
    "spreadsheet[:strict|published], string_check:eq|ne|like|ilike, text_similarity[:METRIC], length:LOW-HIGH, "
    "python:FILE, or several as 0.7*A + 0.3*B"
)


@dataclass(frozen=True)
class GraderPart:
    """One grader of a spec: its kind, what stands behind the colon (the default filled in), and its weight."""

    kind: GraderKind
    argument: str
    weight: float = 1.0

    @property
    def text(self) -> str:
        """Canonical, without the weight."""
        return f"{self.kind}:{self.argument}"


@dataclass(frozen=True)
class GraderSpec:
    """A grader's name, taken apart."""

    parts: tuple[GraderPart, ...]

    @property
    def text(self) -> str:
        """Canonical: what `Grader.name` says."""
        if len(self.parts) == 1:
            return self.parts[0].text
        return " + ".join(f"{part.weight:g}*{part.text}" for part in self.parts)

    @property
    def files(self) -> tuple[str, ...]:
        """The Python files it runs, as written. A document that names one has to be asked about (`dlm.store.Consents`)."""
        return tuple(part.argument for part in self.parts if part.kind == "python")

    @property
    def consent_argv(self) -> tuple[str, ...]:
        """What a consent is for; empty when it runs no code. The files among it are remembered by their bytes."""
        return ("dlm-grader", *self.files) if self.files else ()


def parse_grader(text: str) -> GraderSpec:
    """Take a grader's spec apart.

    Raises:
        UsageError: no such grader, or an argument or weight that is missing or wrong.
    """
    pieces = re.split(r"\s\+\s", text.strip())
    parts = tuple(_part(piece.strip(), text) for piece in pieces)
    if not math.fsum(part.weight for part in parts) > 0:
        raise UsageError("the grader's weights are all 0", found=repr(text), expected="one above 0")
    names = [part.text for part in parts]
    if len(set(names)) < len(names):
        raise UsageError(
            "a grader stands in it twice", found=repr(text), expected="each once, with its weight"
        )
    return GraderSpec(parts)


def _part(piece: str, whole: str) -> GraderPart:
    weight, rest = 1.0, piece
    if found := _WEIGHT.fullmatch(piece):
        weight, rest = float(found[1]), found[2].strip()
    kind, _, argument = rest.partition(":")
    kind, argument = kind.strip(), argument.strip()
    seen = repr(piece) if piece == whole.strip() else f"{piece!r} in {whole!r}"
    if kind not in GRADER_KINDS:
        raise UsageError(
            "no such grader" + _meant(kind, GRADER_KINDS),
            expected=_FORMS,
            found=seen,
            next_step="dlm grader list",
        )
    argument = argument or _DEFAULT.get(kind, "")
    choices = _CHOICES.get(kind)
    if choices is not None and argument not in choices:
        raise UsageError(
            f"the grader {kind} has no {argument!r}{_meant(argument, choices)}"
            if argument
            else f"the grader {kind} needs a choice",
            expected=" or ".join(f"{kind}:{choice}" for choice in choices),
            found=seen,
            next_step="dlm grader list",
        )
    if kind == "length":
        argument = _length(argument, seen)
    if kind == "python" and not argument:
        raise UsageError("the grader python: names no file", expected="python:FILE", found=seen)
    return GraderPart(kind, argument, weight)


def _meant(name: str, known: tuple[str, ...]) -> str:
    meant = nearest(name, known)
    return f": did you mean {meant}?" if meant else ""


def _length(argument: str, seen: str) -> str:
    found = _LENGTH.fullmatch(argument)
    if found is None or int(found[1] or 0) > int(found[2]) or not int(found[2]):
        raise UsageError(
            "the grader length needs a range of lengths",
            expected="length:LOW-HIGH with LOW ≤ HIGH, then words, characters or lines",
            found=seen,
            next_step="for example length:1-80 words",
        )
    return f"{found[1] or 0}-{found[2]} {found[3] or 'words'}"


def make_grader(
    spec: str | GraderSpec,
    *,
    folder: Path,
    pass_threshold: float | None = None,
    limits: Limits | None = None,
) -> Grader:
    """Make the grader that a spec names. A Python file that a document names needs consent first (`dlm.store.Consents`).

    Args:
        folder: the document's, where a Python file's path begins.
        pass_threshold: the least score that passes, 0–1; None = the grader's own.
        limits: what a Python file may use for one answer.

    Raises:
        UsageError: no such grader, or a threshold outside 0–1.
        GradingError: a Python file that is missing or has no `grade`.
    """
    found = parse_grader(spec) if isinstance(spec, str) else spec
    if pass_threshold is not None and not 0 <= pass_threshold <= 1:
        raise UsageError("a pass threshold lies within 0 and 1", found=f"{pass_threshold:g}")
    if len(found.parts) > 1:
        from dlm.grading.combined import CombinedGrader

        graders = [_make(part, folder, None, limits or Limits()) for part in found.parts]
        return CombinedGrader(found, graders, pass_threshold)
    return _make(found.parts[0], folder, pass_threshold, limits or Limits())


def _make(part: GraderPart, folder: Path, threshold: float | None, limits: Limits) -> Grader:
    match part.kind:
        case "spreadsheet":
            from dlm.grading.spreadsheet_published import PublishedSpreadsheetGrader
            from dlm.grading.spreadsheet_strict import StrictSpreadsheetGrader

            made = PublishedSpreadsheetGrader if part.argument == "published" else StrictSpreadsheetGrader
            return made(threshold)
        case "string_check":
            from dlm.grading.text import StringCheck

            return StringCheck(part.argument, threshold)
        case "text_similarity":
            from dlm.grading.text import TextSimilarity

            return TextSimilarity(part.argument, threshold)
        case "length":
            from dlm.grading.text import LengthGrader

            low, high, unit = re.split(r"[- ]", part.argument)
            return LengthGrader(int(low), int(high), unit, threshold)
        case "python":
            from dlm.grading.python_file import PythonGrader

            return PythonGrader(folder / part.argument, part.text, limits, threshold)
