"""Specs of judges, and verdicts: a finite score or an error."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from dlm.errors import UsageError
from dlm.judging import JudgeContext, Verdict, make_judge, parse_judge


@pytest.mark.parametrize(
    ("text", "kind", "target", "argv"),
    [
        ("sway", "sway", "", ()),
        (" sway ", "sway", "", ()),
        ("hf:org/name", "hf", "org/name", ()),
        ("hf: ./folder with spaces", "hf", "./folder with spaces", ()),
        ("cli:judge --rules 'my rules'", "cli", "judge --rules 'my rules'", ("judge", "--rules", "my rules")),
        (
            "cli:a | b; $(c)",
            "cli",
            "a | b; $(c)",
            ("a", "|", "b;", "$(c)"),
        ),  # no shell: words like any others
        ("cli-stream:judge", "cli-stream", "judge", ("judge",)),
        ("cli:https://x", "cli", "https://x", ("https://x",)),
    ],
)
def test_specs(text: str, kind: str, target: str, argv: tuple[str, ...]) -> None:
    spec = parse_judge(text)
    assert (spec.kind, spec.target, spec.argv) == (kind, target, argv)
    assert spec.runs_code == bool(argv)
    assert parse_judge(spec.text) == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("swaay", "cli-stream:<command>"),
        ("sway:x", "sway, hf:<model>"),
        ("", "sway, hf:<model>"),
        ("grader:x", "spreadsheet"),
        ("hf:", "a model's folder or name"),
        ("cli: ", "a command"),
        ("cli:judge 'open", "quotes closed"),
    ],
)
def test_other_specs_are_refused_with_the_forms_there_are(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_judge(text, JudgeContext())
    assert said in caught.value.expected


def test_a_verdict_is_a_finite_score_or_an_error() -> None:
    for score, error in ((None, None), (1.0, "both"), (math.nan, None), (math.inf, None)):
        with pytest.raises(ValueError, match=r"score"):
            Verdict(score, error=error)


def test_attempts_are_counted() -> None:
    assert Verdict(0.0).attempts == 1
    assert Verdict(0.5, failures=("timed_out",)).attempts == 2
    assert Verdict(None, error="x").attempts == 1
    assert Verdict(None, error="x", failures=("crashed", "timed_out")).attempts == 2


_COMMAND_ALONE = """
import sys
from dlm.judging import Item, JudgeContext, make_judge
judge = make_judge("cli:echo '{\\"score\\": 1}'", JudgeContext())
print([verdict.score for verdict in judge.score([Item("a", "b")])], "torch" in sys.modules)
"""


def test_a_command_judges_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", _COMMAND_ALONE], capture_output=True, text=True, check=True)
    assert done.stdout == "[1.0] False\n"
