"""Which questions are asked, and the seeds of their samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlm.document import parse
from dlm.errors import DocumentError, UsageError
from dlm.mining import (
    Question,
    content_hash,
    hand_written_answers,
    probes_of,
    questions_of_document,
    questions_of_file,
    seed_of,
)

HEADER = "---\ndlm_id: 01ARZ3NDEKTSV4RRFFQ69G5FAV\nbase_model: pocket\n---\n"
MINED = (
    '<!-- dlm-auto-mined: judge_name="sway" judge_score_chosen="1" judge_score_rejected="0" '
    'mined_at="2026-01-01T00:00:00Z" mined_run_id="3" -->'
)
BODY = (
    "::instruction::\n### Q\nOne?\n### A\nYes.\n### Q !probe\nTwo?\n### A\nHeld out.\n### Q\nOne?\n### A\nAgain.\n"
    "::instruction::\n### Q\nTwo?\n### A\nAlso a probe.\n### Q\nThree?\n### A\nThird.\n"
    "::preference::\n### Prompt\nOne?\n### Chosen\nGood.\n### Rejected\nBad.\n"
    f"::preference::\n{MINED}\n### Prompt\nFour?\n### Chosen\nMined.\n### Rejected\nWorse.\n"
)


def test_each_question_once_and_no_probe() -> None:
    document = parse(HEADER + BODY)
    assert [question.prompt for question in questions_of_document(document)] == ["One?", "Three?"]
    assert probes_of(document) == {"Two?"}


def test_what_a_person_called_good() -> None:
    """Mined answers are not among them: a judge must not be anchored in what it chose itself."""
    answers = hand_written_answers(parse(HEADER + BODY))
    assert ("One?", "Good.") in answers
    assert ("One?", "Again.") in answers
    assert all(answer not in ("Mined.", "Held out.") for _, answer in answers)


def test_seeds_differ_by_question_sample_and_seed_and_by_nothing_else() -> None:
    one, two = Question("One?", "a:1"), Question("Two?", "a:2")
    assert seed_of(one, 0, 0) == seed_of(Question("One?", "elsewhere:9"), 0, 0)
    different = {seed_of(q, n, s) for q in (one, two) for n in range(5) for s in range(3)}
    assert len(different) == 30
    assert all(-(2**63) <= value < 2**63 for value in different)


def test_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "questions.txt"
    file.write_text("One?\n\n  Two? \nOne?\nProbe?\n", encoding="utf-8")
    found = questions_of_file(file, probes=["Probe?"])
    assert [(q.prompt, q.place) for q in found] == [("One?", f"{file}:1"), ("Two?", f"{file}:3")]


def test_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"prompt": "One\\nand more?", "id": 3}\n\n{"prompt": "Two?"}\n', encoding="utf-8")
    assert [q.prompt for q in questions_of_file(file)] == ["One\nand more?", "Two?"]


@pytest.mark.parametrize(
    "line",
    ["no json", "[]", '{"question": "x"}', '{"prompt": 3}', '{"prompt": " "}', '{"prompt": "\\ud800"}'],
)
def test_bad_json_lines_are_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(f'{{"prompt": "One?"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DocumentError, match=r"questions\.jsonl:2:1"):
        questions_of_file(file)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        questions_of_file(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9?\n")
    with pytest.raises(UsageError, match="cannot read"):
        questions_of_file(tmp_path / "latin.txt")
    (tmp_path / "nul.txt").write_text("a\x00b\n", encoding="utf-8")
    with pytest.raises(DocumentError, match="NUL"):
        questions_of_file(tmp_path / "nul.txt")


def test_the_hash_knows_what_is_asked_and_not_in_which_order() -> None:
    one, two = Question("One?", "a:1"), Question("Two?", "a:2")
    assert content_hash([one, two], None) == content_hash([two, one], "")
    assert (
        len({content_hash([one], None), content_hash([one, two], None), content_hash([one], "Be brief.")})
        == 3
    )
