"""The gate's conditions as text, and as what they mean.

    tables.composite >= base - 0.005                      a mean against a number, or against the baseline's
    tables.rh_like <= base                                a count of answers, for one answer a case
    best of tables.unit_consistency, tables.completeness >= base + 0.02
                                                          one of them is enough
    no regression on probes.score                         paired over cases: its 95 % interval is not all below 0
    no regression on tables.score within 0.01             … and its lower end not below -0.01
    improves stress.data_preservation                     paired over cases: its 95 % interval is all above 0
    baseline tables.composite >= 0.30                     asked of the baseline instead of the candidate
    … if unreachable stress.data_preservation >= base + 0.02
                                                          asked instead, where no answer could meet the first
    validation.sft_loss <= base + 0.1                     the held-out supervised loss of the runs that made them

A metric is `SUITE.NAME`; its names stand in `summary`. The suite may be left out where the document has one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from dlm.errors import UsageError

__all__ = ["VALIDATION", "Condition", "Metric", "default_conditions", "parse_condition"]

VALIDATION: Final = "validation"
Relation = Literal[">=", "<=", ">", "<"]
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_METRIC = re.compile(r"(?:([a-z][a-z0-9_-]*)\.)?([A-Za-z_][\w/:-]*)")
_COMPARE = re.compile(rf"(.+?)\s*(>=|<=|>|<)\s*(?:(-?{_NUMBER})|(base)(?:\s*([+-])\s*({_NUMBER}))?)")
_NO_REGRESSION = re.compile(rf"no regression on\s+(\S+)(?:\s+within\s+({_NUMBER}))?")
_FORMS: Final = (
    "SUITE.METRIC >= NUMBER, SUITE.METRIC >= base - NUMBER, best of A, B >= base + NUMBER, no regression on A [within "
    "NUMBER], improves A; with `baseline` before or `if unreachable CONDITION` behind"
)


@dataclass(frozen=True)
class Metric:
    """`SUITE.NAME`; suite "" where it was left out."""

    suite: str
    name: str

    @property
    def text(self) -> str:
        return f"{self.suite}.{self.name}" if self.suite else self.name


@dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes:
        kind: `compare` (one of `metrics` stands in `relation` to `bound`), `no_regression` or `improves`.
        bound: a number; with `relative`, added to the baseline's value.
        margin: of `no_regression`; None: the interval must not be all below 0.
        of_baseline: asked of the baseline.
        otherwise: asked instead where this one is unreachable.
        text: as it was written.
    """

    kind: Literal["compare", "no_regression", "improves"]
    metrics: tuple[Metric, ...]
    text: str
    relation: Relation = ">="
    bound: float = 0.0
    relative: bool = False
    margin: float | None = None
    of_baseline: bool = False
    otherwise: Condition | None = None

    @property
    def suites(self) -> set[str]:
        """The suites it needs answers to."""
        own = {metric.suite for metric in self.metrics if metric.suite != VALIDATION}
        return own | (self.otherwise.suites if self.otherwise else set())

    @property
    def suites_of_baseline(self) -> set[str]:
        """The suites in which the baseline's answers decide whether it can be met at all."""
        decides = self.relative or self.of_baseline or self.kind == "improves"
        own = {metric.suite for metric in self.metrics if metric.suite != VALIDATION} if decides else set()
        return own | (self.otherwise.suites_of_baseline if self.otherwise else set())


def parse_condition(text: str, suites: Sequence[str]) -> Condition:
    """Read a condition. `suites`: the document's; one that it names and that is not among them is missing, not wrong.

    Raises:
        UsageError: it is no condition, or leaves the suite out where there are several.
    """
    whole = " ".join(text.split())
    first, found, rest = whole.partition(" if unreachable ")
    otherwise = parse_condition(rest, suites) if found else None
    of_baseline = first.startswith("baseline ")
    body = first.removeprefix("baseline ")
    if of_baseline and body.startswith(("no regression on ", "improves ")):
        raise UsageError("a condition on the baseline compares with a number", found=repr(text))
    if body.startswith("no regression on "):
        match = _NO_REGRESSION.fullmatch(body)
        if match is None:
            raise _no_condition(text)
        margin = None if match[2] is None else float(match[2])
        kind: Literal["no_regression", "improves"] = "no_regression"
        metrics = (_metric(match[1], suites, text),)
        return Condition(kind, metrics, whole, margin=margin, otherwise=otherwise)
    if body.startswith("improves "):
        metric = _metric(body.removeprefix("improves "), suites, text)
        return Condition("improves", (metric,), whole, otherwise=otherwise)
    match = _COMPARE.fullmatch(body)
    if match is None:
        raise _no_condition(text)
    left = match[1].removeprefix("best of ") if match[1].startswith("best of ") else match[1]
    names = [name.strip() for name in left.split(",")] if match[1].startswith("best of ") else [left]
    if of_baseline and match[4]:
        raise UsageError("a condition on the baseline compares with a number", found=repr(text))
    amount = float(match[3]) if match[3] else float(match[6] or 0) * (-1 if match[5] == "-" else 1)
    return Condition(
        "compare",
        tuple(_metric(name, suites, text) for name in names),
        whole,
        relation=match[2],  # type: ignore[arg-type]
        bound=amount,
        relative=bool(match[4]),
        of_baseline=of_baseline,
        otherwise=otherwise,
    )


def _metric(text: str, suites: Sequence[str], whole: str) -> Metric:
    match = _METRIC.fullmatch(text.strip())
    if match is None:
        raise _no_condition(whole)
    suite, name = match[1], match[2]
    if suite is None:
        if len(suites) != 1:
            raise UsageError(
                f"the condition names no suite for {name}",
                found=repr(whole),
                expected=" or ".join(f"{one}.{name}" for one in suites)
                or "a suite under evals in the header",
            )
        suite = suites[0]
    return Metric(suite, name)


def _no_condition(text: str) -> UsageError:
    return UsageError("the gate's condition cannot be read", found=repr(text), expected=_FORMS)


def default_conditions(
    regular: str | None, stress: str | None, others: Sequence[str], *, counts_surplus: bool, validation: bool
) -> list[str]:
    """The conditions of a gate that names none.

    For spreadsheets the published five, the published two that ask whether the baseline is worth building on, and no
    regression on surplus rows where the grader counts them; for every other suite, the probes included, no regression; for the held-out supervised loss, where both were measured on the same rows,
    no more than .1 above.

    Args:
        regular, stress: the spreadsheet suites; a stress suite that is not there is asked for all the same, and missing.
        counts_surplus: the regular suite's grader has `row_precision`.
    """
    found = []
    if regular is not None:
        stress = stress or "stress"
        dims = ", ".join(
            f"{regular}.{name}" for name in ("unit_consistency", "format_validity", "completeness")
        )
        found += [
            f"{regular}.composite >= base - 0.005",
            f"{regular}.data_preservation >= base",
            f"{regular}.rh_like <= base",
            f"best of {dims} >= base + 0.02 if unreachable {stress}.data_preservation >= base + 0.02",
            f"{stress}.data_preservation >= 0.85",
        ]
        if counts_surplus:
            found.append(f"no regression on {regular}.row_precision")
        found += [f"baseline {regular}.composite >= 0.30", f"baseline {regular}.hard_fail_share <= 0.40"]
    found += [f"no regression on {name}.score" for name in others]
    if validation:
        found.append(f"{VALIDATION}.sft_loss <= base + 0.1")
    return found
