"""Cases from a generator and from a file; the checks a grader must stand before it is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlm.errors import DocumentError, UsageError
from dlm.grading import (
    Case,
    Grade,
    advise_on_ranks,
    calibrate,
    cases_hash,
    check_sanity,
    make_grader,
    read_cases,
    task_cases,
)
from dlm.grading.sanity import THRESHOLDS


def test_cases_of_a_task_are_the_same_each_time_and_count_from_the_front():
    first, again = task_cases("spreadsheet", count=5), task_cases("spreadsheet:pocket", "heldout", count=5)
    assert [case.key for case in first] == [case.key for case in again]
    assert cases_hash(first) == cases_hash(again) != cases_hash(first[::-1])
    assert [case.key for case in task_cases("spreadsheet", count=2)] == [case.key for case in first[:2]]
    assert task_cases("spreadsheet", seed=7, count=1)[0].key != first[0].key
    assert first[0].place == "spreadsheet/heldout/200:0"
    assert json.loads(json.dumps(first[0].facts)) == first[0].facts  # plain JSON
    with pytest.raises(UsageError, match="no task"):
        task_cases("chess")
    with pytest.raises(UsageError, match="no split"):
        task_cases("spreadsheet", "none")


def _file(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "cases.jsonl"
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8"
    )
    return path


def test_cases_of_a_file(tmp_path):
    path = _file(
        tmp_path,
        {"prompt": "a", "reference": "b", "facts": {"k": [1]}, "split": "train", "id": "x"},
        "",
        {"prompt": "c", "split": "test"},
        {"prompt": "d"},
    )
    cases = read_cases(path)
    assert [(case.prompt, case.reference, dict(case.facts)) for case in cases] == [
        ("a", "b", {"k": [1]}),
        ("c", None, {}),
        ("d", None, {}),
    ]
    assert cases[1].place == f"{path}:3"
    assert [case.prompt for case in read_cases(path, "test")] == ["c"]
    assert len(read_cases(path, count=2)) == 2
    with pytest.raises(UsageError, match="no split 'other'") as caught:
        read_cases(path, "other")
    assert (caught.value.expected, caught.value.found) == (
        'cases marked "split": "other"',
        "cases marked test, train",
    )
    unmarked = tmp_path / "unmarked.jsonl"
    unmarked.write_text('{"prompt": "a"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="none that is marked"):
        read_cases(unmarked, "train")


def test_bad_lines_are_all_named(tmp_path):
    path = _file(
        tmp_path, "{", [1], {"prompt": " "}, {"prompt": "a", "refrence": "b"}, {"prompt": "a", "facts": 3},
        {"prompt": "a", "reference": 3}, '{"prompt": "\\ud800"}', {"prompt": "good"},
    )  # fmt: skip
    with pytest.raises(DocumentError) as caught:
        read_cases(path)
    assert [problem.line for problem in caught.value.problems] == [1, 2, 3, 4, 5, 6, 7]
    assert "refrence" in str(caught.value)
    with pytest.raises(UsageError, match="cannot read"):
        read_cases(tmp_path / "missing.jsonl")
    with pytest.raises(UsageError, match="none to use"):
        read_cases(_file(tmp_path, ""))


def test_the_strict_grader_is_sane_and_the_published_one_is_not(tmp_path):
    strict, published = (
        make_grader(f"spreadsheet:{mode}", folder=tmp_path) for mode in ("strict", "published")
    )
    for task in ("spreadsheet:pocket", "spreadsheet:published"):
        found = check_sanity(strict, task_cases(task, count=12))
        assert found.ok, (task, found)
        assert (found.gold_lowest, found.gold_passed, len(found.bad)) == (1.0, 1.0, 5)
    found = check_sanity(published, task_cases("spreadsheet:published", count=12))
    assert not found.ok
    assert {one.name for one in found.bad if not one.ok} >= {"another case's answer"}
    assert found.beaten


def test_a_grader_that_fails_is_not_sane(tmp_path):
    (tmp_path / "bad.py").write_text("def grade(sample, item): raise ValueError('x')\n")
    grader = make_grader("python:bad.py", folder=tmp_path)
    found = check_sanity(grader, [Case("p", "r")])
    grader.close()
    assert not found.ok
    assert (found.gold_errors, found.gold_lowest, found.bad[0].errors) == (1, None, 1)


def test_of_each_kind_no_more_is_graded_after_the_third_error():
    class Failing:
        asked = 0

        def grade(self, items):
            self.asked += len(items)
            return [Grade(0.0, {}, passed=False, error="grader", message="it hangs") for _ in items]

    grader = Failing()
    found = check_sanity(grader, [Case(f"p{number}", f"r{number}") for number in range(20)])
    assert grader.asked == 18
    assert (found.gold_errors, [one.errors for one in found.bad]) == (3, [3] * 5)
    assert {(one.highest, one.mean, one.ok) for one in found.bad} == {
        (None, None, False)
    }  # no score is not a score of 0


def test_thresholds_and_their_boundaries():
    scores = [0.0] * 10 + [0.35] * 15 + [0.55] * 25 + [0.75] * 20 + [1.0] * 30
    rows = {
        row.threshold: (row.fail_rate, row.verdict)
        for row in calibrate([Grade(score, {}) for score in scores])
    }
    assert tuple(rows) == THRESHOLDS
    assert rows[0.3] == (0.10, "easy")  # not below 10 %
    assert rows[0.4] == (0.25, "good")
    assert rows[0.6] == (0.50, "good")
    assert rows[0.8] == (0.70, "hard")  # not above 70 %
    assert calibrate([Grade(1.0, {})])[0].verdict == "too easy"
    assert calibrate([Grade(0.0, {})])[0].verdict == "too hard"
    half = calibrate([Grade(1.0, {}, passed=True), Grade(0.99, {}, barred=True)])
    assert {row.fail_rate for row in half} == {0.5}  # what never passes fails under every threshold
    with pytest.raises(ValueError, match="needs scores"):
        calibrate([])


def test_what_ranks_say():
    assert advise_on_ranks(0.8).startswith("go")
    assert advise_on_ranks(0.7).startswith("look")
    assert advise_on_ranks(0.59).startswith("fix")
    assert "no ranks" in advise_on_ranks(None)
