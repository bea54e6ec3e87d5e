"""A grader as a judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlm.errors import GradingError, UsageError
from dlm.grading import task_cases
from dlm.judging import Anchor, Item, JudgeContext, check_judge, make_judge, parse_judge


def test_its_spec_is_canonical_and_names_its_code() -> None:
    spec = parse_judge("grader: 2*spreadsheet + python:a.py")
    assert spec.text == "grader:2*spreadsheet:strict + 1*python:a.py"
    assert (spec.argv, spec.runs_code) == (("dlm-grader", "a.py"), True)
    assert not parse_judge("grader:spreadsheet").runs_code
    for text in ("grader:", "grader:none", "grader"):
        with pytest.raises(UsageError):
            parse_judge(text)


def test_answers_are_scored_by_what_the_document_knows(tmp_path: Path) -> None:
    [case] = task_cases("spreadsheet", count=1)
    context = JudgeContext(anchors=(Anchor("Why?", "Because."),), folder=tmp_path, cases={case.prompt: case})
    judge = make_judge("grader:spreadsheet", context)
    gold, prose, unknown = judge.score(
        [Item(case.prompt, str(case.reference)), Item(case.prompt, "no"), Item("?", "a,b\n1,2")]
    )
    judge.close()
    assert (judge.name, judge.default_threshold) == ("grader:spreadsheet:strict", 0.1)
    assert gold.score == 1.0
    assert (prose.score, prose.reasoning) == (0.0, "no two lines of a table; csv_not_parseable")
    assert unknown.score is None
    assert unknown.failures == ("unscorable",)
    text = make_judge("grader:text_similarity", context)
    assert [verdict.score for verdict in text.score([Item("Why?", "Because.")])] == [1.0]


def test_a_file_that_is_not_there_is_missed_before_the_sampling(tmp_path: Path) -> None:
    with pytest.raises(GradingError):
        check_judge(parse_judge("grader:python:none.py"), timeout_s=1.0, folder=tmp_path)
    (tmp_path / "ok.py").write_text("def grade(sample, item): return len(sample['output_text']) / 10\n")
    check_judge(parse_judge("grader:python:ok.py"), timeout_s=1.0, folder=tmp_path)
    judge = make_judge("grader:python:ok.py", JudgeContext(folder=tmp_path))
    try:
        assert [one.score for one in judge.score([Item("p", "12345")])] == [0.5]
    finally:
        judge.close()
