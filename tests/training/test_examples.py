from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.document import parse
from dlm.errors import DocumentError, UsageError
from dlm.training.examples import Row, data_hash, encode, read_rows_file, rows_of_document, split_rows
from tiny_training import ByteChat, chat_row

pytestmark = pytest.mark.torch

HEADER = "---\ndlm_id: 01ARZ3NDEKTSV4RRFFQ69G5FAV\ndlm_version: 15\nbase_model: pocket\n---\n"


def test_rows_of_a_document_keep_their_places() -> None:
    text = (
        HEADER + "Prose here.\n\n::instruction::\n### Q\nOne?\n### A\nYes.\n### Q !probe\nTwo?\n### A\nNo.\n"
    )
    rows, left_out = rows_of_document(parse(text))
    assert not left_out
    assert [(row.kind, row.prompt, row.text, row.probe) for row in rows] == [
        ("prose", None, rows[0].text, False),
        ("chat", "One?", "Yes.", False),
        ("chat", "Two?", "No.", True),
    ]
    assert rows[0].text.strip() == "Prose here."
    lines = text.split("\n")
    assert lines[rows[1].line - 1].startswith("### Q")
    assert lines[rows[2].line - 1] == "### Q !probe"


def test_only_the_answer_and_its_end_carry_loss() -> None:
    encoded = encode([chat_row("ask", "tell")], ByteChat(), 64)
    (only,) = encoded.examples
    assert bytes(only.ids[only.first_target : -1]) == b"tell"
    assert only.n_targets == len("tell") + 1


def test_prose_carries_loss_on_every_token_but_the_first() -> None:
    (only,) = encode([Row("prose", None, "abc", "d", 1)], ByteChat(), 64).examples
    assert only.first_target == 1
    assert only.n_targets == len(only.ids) - 1


@given(st.binary(min_size=1, max_size=300).map(lambda b: b.hex()), st.integers(min_value=2, max_value=40))
def test_long_prose_is_split_so_that_every_token_is_a_target_once(text: str, size: int) -> None:
    ids = ByteChat().text_ids(text)
    encoded = encode([Row("prose", None, text, "d", 1)], ByteChat(), size)
    targets = [token for window in encoded.examples for token in window.ids[window.first_target :]]
    assert targets == ids[1:]
    assert all(len(window.ids) <= size for window in encoded.examples)
    assert not encoded.skipped
    assert encoded.split_prose == (len(ids) > size)


def test_a_row_that_does_not_fit_is_listed_and_never_cut() -> None:
    encoded = encode([chat_row("q", "x" * 100), chat_row("q", "y")], ByteChat(), 64)
    assert len(encoded.examples) == 1
    assert encoded.skipped[0].row.text == "x" * 100
    assert "104 tokens" in encoded.skipped[0].reason
    assert "64" in encoded.skipped[0].reason


def rows(n: int) -> list[Row]:
    return [chat_row(f"question {i}?", f"answer {i}", i) for i in range(n)]


def test_no_validation_below_twenty_rows_and_it_is_said() -> None:
    train, validation, reason = split_rows(rows(19), 0.1)
    assert len(train) == 19
    assert validation == []
    assert "20" in reason


@given(st.integers(min_value=20, max_value=80), st.integers(min_value=1, max_value=40))
def test_a_growing_document_moves_no_row_to_the_other_side(n: int, more: int) -> None:
    _, before, _ = split_rows(rows(n), 0.2)
    train, after, _ = split_rows(rows(n + more), 0.2)
    assert train
    assert after
    if len(before) > 1:  # a single held-out row may be the stand-in for an empty draw
        assert {row.key for row in before} <= {row.key for row in after}


def test_equal_rows_stand_on_one_side_and_probes_on_none() -> None:
    probe = Row("chat", "held out?", "yes", "d", 9, probe=True)
    train, validation, _ = split_rows([*rows(30), *rows(30), probe], 0.3)
    assert not {row.key for row in train} & {row.key for row in validation}
    assert probe not in train
    assert probe not in validation
    assert len(train) + len(validation) == 60


def test_rows_that_are_all_alike_are_all_trained_on() -> None:
    train, validation, reason = split_rows([chat_row("same?", "same")] * 25, 0.1)
    assert (len(train), validation) == (25, [])
    assert "alike" in reason


def test_the_data_hash_sees_every_change() -> None:
    base = rows(3)
    changed = [*base[:2], chat_row("question 2?", "answer 2.", 2)]
    probed = [*base[:2], Row("chat", "question 2?", "answer 2", "doc.dlm", 2, probe=True)]
    assert (
        len(
            {
                data_hash(base),
                data_hash(changed),
                data_hash(probed),
                data_hash(base[:2]),
                data_hash(base[::-1]),
            }
        )
        == 5
    )
    moved = [chat_row(row.prompt or "", row.text, row.line + 7) for row in base]
    assert data_hash(moved) == data_hash(base)


def test_rows_file_shapes_and_faults(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    good = [
        {"prompt": "p", "completion": "c"},
        {"question": "q", "answer": "a"},
        {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]},
        {"text": "prose"},
    ]
    file.write_text("\n".join(json.dumps(item) for item in good) + "\n\n", encoding="utf-8")
    assert [(row.prompt, row.text) for row in read_rows_file(file)] == [
        ("p", "c"),
        ("q", "a"),
        ("u", "v"),
        (None, "prose"),
    ]
    bad = ['{"prompt": "p"}', "not json", '{"text": ""}', '{"messages": []}', "[1]", '{"text": "\\ud800"}']
    bad += ['{"text": "t", "prompt": "p"}', '{"prompt": "p", "completion": "c\\u0000"}']
    file.write_text("\n".join(bad), encoding="utf-8")
    with pytest.raises(DocumentError) as fault:
        read_rows_file(file)
    assert [problem.line for problem in fault.value.problems] == [1, 2, 3, 4, 5, 6, 7, 8]
    with pytest.raises(UsageError):
        read_rows_file(tmp_path / "absent.jsonl")


def test_a_system_message_in_a_rows_file_must_be_the_documents_own(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    turns = [("system", "Be brief."), ("user", "u"), ("assistant", "v")]
    messages = [{"role": role, "content": content} for role, content in turns]
    file.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    assert [(row.prompt, row.text) for row in read_rows_file(file, "Be brief.")] == [("u", "v")]
    with pytest.raises(DocumentError, match="system_prompt"):
        read_rows_file(file)


def test_bug_2_an_answer_without_tokens_is_listed() -> None:
    encoded = encode([chat_row("q", "  \n"), chat_row("q", "")], ByteChat(), 64)
    assert not encoded.examples
    assert [skipped.kind for skipped in encoded.skipped] == ["empty", "empty"]


def test_a_named_adapter_is_refused_with_its_line() -> None:
    with pytest.raises(UsageError) as fault:
        rows_of_document(parse(HEADER + "::instruction#tone::\n### Q\nOne?\n### A\nYes.\n"))
    assert fault.value.where.endswith(":6:1")
