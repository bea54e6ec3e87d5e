"""JSON lines: a row a line. A line with a step holds numbers of that step; one without holds facts of the run.

{"method": "dpo", "planned_steps": 1938, "final_loss": 0.4665}
{"step": 1, "train_loss": 0.693, "rewards/accuracies": 0.5}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from dlm.curves.assembly import RawRun, as_step
from dlm.curves.formats.records import Gathered, facts_of, step_of
from dlm.errors import CurveFileError

__all__ = ["read_lines"]

_EXPECTED = 'an object on each line, such as {"step": 1, "train_loss": 2.3}'


def read_lines(text: TextIO, where: str) -> RawRun:
    """Read JSON lines.

    Raises:
        CurveFileError: a line that is no JSON object (a last line that breaks off is left out), or a step that is no
            whole number.
    """
    raw = RawRun("jsonl")
    gathered = Gathered()
    for number, record in _records(text, where, raw):
        found = step_of(record)
        if found is None:
            raw.facts.update(facts_of(record))
            continue
        key, value = found
        step = as_step(value)
        if step is None:
            raise CurveFileError(
                "a step is no whole number",
                where=f"{where}:{number}",
                expected="0, 1, 2, …",
                found=f"{key}: {json.dumps(value)[:40]}",
                next_step="mend that line, then: dlm diagnose FILE",
            )
        gathered.add(step, record, leave=key)
        for fact in ("method", "kind"):
            if isinstance(record.get(fact), str):
                raw.facts.setdefault(fact, record[fact])
    gathered.into(raw)
    return raw


def _records(text: TextIO, where: str, raw: RawRun) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text, 1):
        bare = line.strip().strip("\ufeff")
        if not bare:
            continue
        try:
            record = json.loads(bare)
        except (ValueError, RecursionError) as error:
            if line[-1:] not in "\r\n" and number > 1:
                raw.problems.append("the last line breaks off; it was left out")
                return
            column = f":{error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            reason = (
                error.msg
                if isinstance(error, json.JSONDecodeError)
                else "nested too deeply, or a huge number"
            )
            raise CurveFileError(
                f"not JSON: {reason}",
                where=f"{where}:{number}{column}",
                expected=_EXPECTED,
                found=repr(bare[:40]),
                next_step="mend that line, then: dlm diagnose FILE",
            ) from None
        if not isinstance(record, dict):
            raise CurveFileError(
                "a line is no object", where=f"{where}:{number}", expected=_EXPECTED, found=repr(bare[:40])
            )
        yield number, record
