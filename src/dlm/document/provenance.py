"""Where a section came from: one HTML comment on the line right after its fence.

    <!-- dlm-auto-mined: judge_name="cli:x" judge_score_chosen="0.82" ... mined_run_id="7" -->

Values are written so that no value can end the comment or the line: `&`, `"`, `<`, `>`, line ends and other control
characters, and the second hyphen of `--`, become character references. Reading knows these and no others, so that
`cli:score a&copy=1` written by another tool stays what it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dlm.document.grammar import refuse_unwritable
from dlm.errors import UsageError

__all__ = ["Provenance", "looks_like_provenance", "mined", "read_provenance", "write_provenance"]

KEYS: Final[dict[str, tuple[str, ...]]] = {
    "dlm-auto-mined": (
        "judge_name",
        "judge_score_chosen",
        "judge_score_rejected",
        "mined_at",
        "mined_run_id",
    ),
    "dlm-auto-synth": ("synth_teacher", "synth_strategy", "synth_at", "source_section_id"),
    "dlm-auto-harvest": ("source",),
}
"""The kinds of provenance with the keys that each requires, in the order in which they are written."""

_LOOK: Final = re.compile(r"[ \t]*<!--\s*dlm-auto-")
_COMMENT: Final = re.compile(r"<!--[ \t]*(dlm-auto-[a-z]+):(.*?)-->[ \t]*", re.DOTALL)
_PAIR: Final = re.compile(r'[ \t]*([a-z_]+)="([^"]*)"')
_REFERENCE: Final = re.compile(r"&(?:(quot|amp|lt|gt)|#([0-9]{1,7}));")
_NAMED: Final = {"quot": '"', "amp": "&", "lt": "<", "gt": ">"}
_UNSAFE: Final = re.compile(r'[&"<>\x00-\x1f\x7f\x85\u2028\u2029]|(?<=-)-')
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Provenance:
    """A section's origin: the comment's kind and its values, in the file's order."""

    kind: str  # dlm-auto-mined, dlm-auto-synth, dlm-auto-harvest
    values: Mapping[str, str]

    @property
    def auto_mined(self) -> bool:
        """Whether the section was mined from a version's own answers."""
        return self.kind == "dlm-auto-mined"

    @property
    def mined_run_id(self) -> int | None:
        """The mine run that wrote the section; None for other kinds."""
        value = self.values.get("mined_run_id")
        return None if value is None else int(value)


def mined(
    *,
    judge_name: str,
    judge_score_chosen: float,
    judge_score_rejected: float,
    mined_at: str,
    mined_run_id: int,
) -> Provenance:
    """The provenance of a mined pair; `mined_at` is ISO 8601.

    Raises:
        UsageError: a value that could not be read back (a score that is not finite, a time that is none).
    """
    values = {
        "judge_name": judge_name,
        "judge_score_chosen": repr(float(judge_score_chosen)),
        "judge_score_rejected": repr(float(judge_score_rejected)),
        "mined_at": mined_at,
        "mined_run_id": str(int(mined_run_id)),
    }
    fault = _fault("dlm-auto-mined", values)
    if fault:
        raise UsageError(f"this provenance cannot be written: {fault}")
    return Provenance("dlm-auto-mined", values)


def looks_like_provenance(line: str) -> bool:
    """Whether a line starts like a provenance comment, well-formed or not."""
    return _LOOK.match(line) is not None


def read_provenance(line: str) -> Provenance | str:
    """Read a provenance comment; what is wrong with it, as text, when it cannot be used."""
    comment = _COMMENT.fullmatch(line)
    if comment is None:
        return 'the comment is not of the form <!-- dlm-auto-mined: key="value" ... -->, whole on this line'
    kind, rest = comment[1], comment[2].rstrip(" \t")
    if kind not in KEYS:
        return f"unknown provenance {kind!r}; known: {', '.join(KEYS)}"
    values: dict[str, str] = {}
    place = 0
    while place < len(rest):
        pair = _PAIR.match(rest, place)
        if pair is None:
            return f'cannot read key="value" from {rest[place : place + 40].strip()!r}'
        if pair[1] in values:
            return f"{pair[1]} stands twice"
        values[pair[1]] = _REFERENCE.sub(_character, pair[2])
        place = pair.end()
    fault = _fault(kind, values)
    return fault or Provenance(kind, values)


def write_provenance(provenance: Provenance) -> str:
    """The comment line for a provenance, without a line end; reads back to the same values.

    Raises:
        TextError: a value with a NUL or a lone surrogate.
    """
    pairs = []
    for key, value in provenance.values.items():
        if value:
            refuse_unwritable(value, key)
        pairs.append(f'{key}="{_UNSAFE.sub(lambda match: _reference(match[0]), value)}"')
    return f"<!-- {provenance.kind}: {' '.join(pairs)} -->"


def _fault(kind: str, values: Mapping[str, str]) -> str:
    """What is wrong with the values of a provenance of this kind, "" when nothing is."""
    missing = [key for key in KEYS[kind] if key not in values]
    if missing:
        return f"{kind} lacks {', '.join(missing)}"
    unknown = [key for key in values if key not in KEYS[kind]]
    if unknown:
        return f"{kind} knows no {', '.join(unknown)}"
    for key in KEYS[kind]:
        value = values[key]
        if key.startswith("judge_score") and not _is_finite(value):
            return f"{key} is not a finite number: {value!r}"
        if key == "mined_run_id" and not (value.isascii() and value.isdigit() and len(value) <= 18):
            return f"mined_run_id is not a run's number: {value!r}"
        if key in ("mined_at", "synth_at") and not _is_time(value):
            return f"{key} is not a time like 2026-04-23T18:42:11Z: {value!r}"
    return ""


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_time(text: str) -> bool:
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _character(match: re.Match[str]) -> str:
    if match[1]:
        return _NAMED[match[1]]
    code = int(match[2])
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 and code else match[0]


def _reference(character: str) -> str:
    names = {'"': "&quot;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
    return names.get(character) or f"&#{ord(character)};"
