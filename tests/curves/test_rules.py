"""Every rule on curves written by hand: what must set it off, what comes near and must not, and what is too short."""

from __future__ import annotations

import pytest

import curve_cases
import curve_cases_rewards
from dlm.curves import RULES, Thresholds, diagnose

CASES = curve_cases.CASES | curve_cases_rewards.CASES


def test_every_rule_has_its_cases_and_enough_of_them() -> None:
    assert set(CASES) == {rule.name for rule in RULES}
    for name, case in CASES.items():
        assert len(case.fires) >= 3, name
        assert len(case.quiet) >= 3, name


@pytest.mark.parametrize("name", CASES)
def test_what_must_set_it_off_does(name: str) -> None:
    for number, run in enumerate(CASES[name].fires):
        finding = diagnose(run).of(name)
        assert finding is not None, number
        assert finding.evidence, number
        assert finding.action, number
        for one in finding.evidence:
            assert one.text, number
            assert not one.series or len(one.steps) == len(one.values) <= 12, number
        if CASES[name].severity:
            assert finding.severity == CASES[name].severity[number], number


@pytest.mark.parametrize("name", CASES)
def test_what_comes_near_does_not(name: str) -> None:
    for number, run in enumerate(CASES[name].quiet):
        diagnosis = diagnose(run)
        assert diagnosis.of(name) is None, number
        assert name not in {one.rule for one in diagnosis.undecided}, number


@pytest.mark.parametrize("name", CASES)
def test_too_short_is_no_guess(name: str) -> None:
    case = CASES[name]
    diagnosis = diagnose(case.short)
    assert diagnosis.of(name) is None
    undecided = {one.rule: one for one in diagnosis.undecided}
    assert (name in undecided) == case.waits
    if case.waits:
        assert undecided[name].reason


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_names_the_thresholds_it_reads(rule: object) -> None:
    assert set(rule.thresholds) <= set(Thresholds.model_fields)  # type: ignore[attr-defined]


def test_every_threshold_is_read_by_a_rule() -> None:
    assert set(Thresholds.model_fields) == {name for rule in RULES for name in rule.thresholds}
