"""A grade keeps what it says apart, and a spec is read as it is written."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.errors import GradingError, UsageError
from dlm.grading import ErrorTally, Grade, GradeItem, make_grader, parse_grader
from dlm.grading.grader import Dimension, graded, not_graded, weighted

ITEM = GradeItem("p", "output", "reference")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.01, 1.01])
def test_a_grade_is_a_number_from_0_to_1(bad):
    with pytest.raises(ValueError, match="number from 0 to 1"):
        Grade(bad, {})
    with pytest.raises(ValueError, match="number from 0 to 1"):
        Grade(0.5, {"part": bad})


def test_an_error_passes_nothing_and_scores_nothing():
    with pytest.raises(ValueError, match="scores 0"):
        Grade(0.5, {}, error="grader")
    with pytest.raises(ValueError, match="passes nothing"):
        Grade(0.0, {}, passed=True, error="sample_parse")
    broken = not_graded(ITEM, "why")
    assert (broken.score, broken.passed, broken.scored, broken.message) == (0.0, False, False, "why")
    assert graded(ITEM, 0.9, {}, threshold=0.5, error="sample_parse").scored


def test_flags_that_every_grader_sets():
    empty = graded(GradeItem("p", " \n", truncated=True), 1.0, {}, threshold=0.5, flags=["own"])
    assert empty.flags == ("own", "truncated", "unresponsive")


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 10)), min_size=1, max_size=6))
def test_a_weighted_mean_lies_between_its_parts(parts):
    dimensions = [Dimension(str(at), weight) for at, (_, weight) in enumerate(parts)]
    mean = weighted({str(at): value for at, (value, _) in enumerate(parts)}, dimensions)
    assert min(value for value, _ in parts) - 1e-9 <= mean <= max(value for value, _ in parts) + 1e-9


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("spreadsheet", "spreadsheet:strict"),
        (" spreadsheet:published ", "spreadsheet:published"),
        ("text_similarity", "text_similarity:fuzzy_match"),
        ("length:80", "length:0-80 words"),
        ("length:10 - 80 lines", "length:10-80 lines"),
        ("python:my grader.py", "python:my grader.py"),
        ("0.7*spreadsheet + .3 * length:1-9", "0.7*spreadsheet:strict + 0.3*length:1-9 words"),
        ("string_check:eq + length:5", "1*string_check:eq + 1*length:0-5 words"),
    ],
)
def test_specs(text, canonical):
    spec = parse_grader(text)
    assert spec.text == canonical
    assert parse_grader(canonical) == spec


@pytest.mark.parametrize(
    "text",
    ["", "sway", "spreadsheet:loose", "string_check", "string_check:is", "length:", "length:9-2", "length:0", "python:",
     "0*spreadsheet", "spreadsheet + spreadsheet:strict", "2*", "length:1-2 pages"],
)  # fmt: skip
def test_specs_that_are_none(text):
    with pytest.raises(UsageError):
        parse_grader(text)


@pytest.mark.parametrize(
    ("text", "told", "found"),
    [
        ("spredsheet", "no such grader: did you mean spreadsheet?", "'spredsheet'"),
        ("0.7*spreadsheet + 0.3*lenght:1-6", "no such grader: did you mean length?", "'0.3*lenght:1-6' in"),
        ("spreadsheet:publishd", "has no 'publishd': did you mean published?", "'spreadsheet:publishd'"),
        ("taste", "no such grader", "'taste'"),
    ],
)
def test_of_several_graders_the_wrong_one_is_named_and_what_was_likely_meant(text, told, found):
    with pytest.raises(UsageError) as caught:
        parse_grader(text)
    assert caught.value.message.endswith(told)
    assert caught.value.found.startswith(found)


def test_code_of_a_spec_is_named_for_consent():
    spec = parse_grader("python:a.py + python:b.py + length:9")
    assert (spec.files, spec.consent_argv) == (("a.py", "b.py"), ("dlm-grader", "a.py", "b.py"))
    assert parse_grader("length:9").consent_argv == ()


def _score(spec: str, output: str, reference: str | None = "The Answer", **more: object) -> Grade:
    from pathlib import Path

    return make_grader(spec, folder=Path(), **more).grade([GradeItem("p", output, reference)])[0]


@pytest.mark.parametrize(
    ("operation", "output", "score"),
    [
        ("eq", "The Answer\n", 1), ("eq", "the answer", 0), ("ne", "The Answer", 0), ("ne", "other", 1),
        ("like", "It is The Answer.", 1), ("like", "It is the answer.", 0),
        ("ilike", "IT IS THE ANSWER.", 1), ("ilike", "no", 0),
    ],
)  # fmt: skip
def test_string_checks(operation, output, score):
    grade = _score(f"string_check:{operation}", output)
    assert (grade.score, grade.passed, grade.dimensions) == (score, score == 1, {"string_check": score})


@pytest.mark.parametrize("metric", ["fuzzy_match", "levenshtein", "jaro_winkler", "token_sort", "token_set"])
def test_similarities(metric):
    same, near, far = (
        _score(f"text_similarity:{metric}", text).score for text in ("The Answer", "The answr", "zzz")
    )
    assert same == 1.0
    assert same > near > far >= 0
    assert _score(f"text_similarity:{metric}", "", "").score in (0.0, 1.0)


def test_a_similarity_by_hand():
    # kitten → sitting: three edits of seven letters; by insertions and deletions alone, five of thirteen
    assert _score("text_similarity:levenshtein", "kitten", "sitting").score == pytest.approx(1 - 3 / 7)
    assert _score("text_similarity:fuzzy_match", "kitten", "sitting").score == pytest.approx(1 - 5 / 13)
    assert _score("text_similarity:token_sort", "b a", "a b").score == 1.0


def test_a_missing_reference_is_the_graders_error():
    for spec in ("string_check:eq", "text_similarity"):
        assert _score(spec, "x", None).error == "grader"


@pytest.mark.parametrize(("words", "score"), [(0, 0), (1, 0.5), (2, 1), (4, 1), (8, 0.5), (16, 0.25)])
def test_lengths(words, score):
    assert _score("length:2-4", "word " * words).score == score


def test_combined_by_hand(tmp_path):
    (tmp_path / "half.py").write_text(
        "def grade(sample, item):\n    assert sample['output_text'] != 'bad'\n    return 0.5\n"
    )
    grader = make_grader("3*string_check:eq + 1*python:half.py", folder=tmp_path, pass_threshold=0.85)
    try:
        right, wrong, bad = grader.grade([GradeItem("p", text, "yes") for text in ("yes", "no", "bad")])
    finally:
        grader.close()
    assert right.score == pytest.approx((3 * 1 + 0.5) / 4)
    assert right.passed
    assert wrong.score == pytest.approx(0.125)
    assert wrong.dimensions == {
        "string_check:eq": 0.0,
        "string_check:eq/string_check": 0.0,
        "python:half.py": 0.5,
        "python:half.py/python": 0.5,
    }
    assert set(wrong.dimensions) == {dimension.name for dimension in grader.dimensions}
    assert (bad.error, bad.message) == ("grader", "python:half.py: AssertionError")
    assert weighted(right.dimensions, grader.dimensions) == pytest.approx(right.score)


GOLD = "name,amount\n" + "\n".join(f"n{at},{at}0" for at in range(10))
LINES = GOLD.split("\n")


@pytest.mark.parametrize(
    ("output", "score", "passed", "capped", "error"),
    [
        (GOLD, 1.0, True, False, None),
        # strict: .45·.9 + .55 = .955, which does not pass there: nothing passes that dropped a row
        ("\n".join(LINES[:-1]), (0.955 + 3) / 4, False, False, None),
        ("\n".join(LINES[:6]), 0.7 * 0.5, False, True, None),  # capped at .35; the mean would be .84
        ("no table at all", 0.0, False, False, "sample_parse"),  # the mean would be .75
    ],
)
def test_a_hard_fail_of_a_part_is_one_of_the_whole(output, score, passed, capped, error):
    grader = make_grader("1*spreadsheet + 3*length:1-99 words", folder=Path(), pass_threshold=0.3)
    [grade] = grader.grade([GradeItem("p", output, GOLD)])
    assert grade.score == pytest.approx(score)
    assert (grade.passed, grade.capped, grade.error) == (passed, capped, error)
    assert grade.dimensions["length:1-99 words"] == 1.0


def test_parts_without_hard_fails_pass_by_the_score_alone():
    grader = make_grader("1*string_check:eq + 3*length:1-99 words", folder=Path(), pass_threshold=0.7)
    [grade] = grader.grade([GradeItem("p", "something else", "this")])
    assert (grade.score, grade.passed, grade.capped) == (0.75, True, False)


def test_a_threshold_of_ones_own():
    assert _score("text_similarity", "The Answr", pass_threshold=0.99).passed is False
    assert _score("text_similarity", "The Answr", pass_threshold=0.9).passed is True
    with pytest.raises(UsageError, match="within 0 and 1"):
        _score("length:9", "x", pass_threshold=1.5)


def test_a_tally_at_its_edges():
    fine, broken = graded(ITEM, 1.0, {}, threshold=0.5), not_graded(ITEM, "it broke")
    tally = ErrorTally(allowed_share=0.5, at_least=10)
    tally.add([broken, broken, broken])
    with pytest.raises(GradingError, match="3 of 3"):
        tally.check()
    tally.add([fine] * 3)
    tally.check()  # exactly the allowed share
    none = ErrorTally(allowed_share=0.0)
    none.add([fine] * 5)
    with pytest.raises(GradingError, match="it broke"):
        none.add([broken])


def test_graders_load_no_torch():
    code = (
        "import sys; from pathlib import Path; from dlm.grading import make_grader;"
        "[make_grader(s, folder=Path()) for s in ('spreadsheet', 'text_similarity', 'length:9')];"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
