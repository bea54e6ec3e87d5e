"""Names and means of what a grader says, as the field's dashboards have them.

    scores/graders/<type>/<name>/train_reward_mean      mean reward that a grader gave
    scores/graders/<type>/<name>/<dimension>/train_mean  mean of one of its dimensions
    errors/graders/<type>/<name>/train_error_count      answers that it failed on
    flags/<flag>/train_share                            share of answers with a flag; not logged while there are none

with `valid` in place of `train` for held-out prompts. A grader made of several has all of this for each of its parts.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from dlm.grading import TRUNCATED, UNRESPONSIVE, Grade, Grader

__all__ = ["dimension_metric", "grader_metrics"]


def grader_metrics(grader: Grader, grades: Sequence[Grade], part: str) -> dict[str, float]:
    """Means over `grades` by metric name; `part` is train or valid."""
    scored = [grade for grade in grades if grade.scored]
    failed = [grade.message for grade in grades if not grade.scored]
    values: dict[str, float] = {}
    parts = _parts(grader)
    for name in parts or (grader.name,):
        count = sum(message.startswith(f"{name}:") for message in failed) if parts else len(failed)
        values[f"errors/graders/{_path(name)}/{part}_error_count"] = float(count)
    if not parts and scored:
        values[f"scores/graders/{_path(grader.name)}/{part}_reward_mean"] = statistics.fmean(
            grade.score for grade in scored
        )
    for dimension in grader.dimensions:
        found = [grade.dimensions[dimension.name] for grade in scored if dimension.name in grade.dimensions]
        if found:
            values[dimension_metric(grader, dimension.name, part)] = statistics.fmean(found)
    flags = Counter(flag for grade in grades for flag in grade.flags)
    for flag, count in sorted(flags.items()):
        if flag not in (TRUNCATED, UNRESPONSIVE):  # these have metrics of their own
            values[f"flags/{flag}/{part}_share"] = count / len(grades)
    return values


def dimension_metric(grader: Grader, dimension: str, part: str) -> str:
    """The name of a dimension's mean. The dimensions of a grader made of several are its parts, and those of each part
    behind the part's name."""
    parts = _parts(grader)
    if dimension in parts:
        return f"scores/graders/{_path(dimension)}/{part}_reward_mean"
    owner = next((name for name in parts if dimension.startswith(f"{name}/")), None)
    own = dimension if owner is None else dimension.removeprefix(f"{owner}/")
    return f"scores/graders/{_path(owner or grader.name)}/{own}/{part}_mean"


def _parts(grader: Grader) -> tuple[str, ...]:
    """The graders that one is made of; empty when it is made of none."""
    names = [dimension.name for dimension in grader.dimensions]
    return tuple(name for name in names if any(other.startswith(f"{name}/") for other in names))


def _path(name: str) -> str:
    """`spreadsheet:strict` as `spreadsheet/strict`."""
    kind, _, argument = name.partition(":")
    return f"{kind}/{argument or kind}".replace(" ", "_")
