"""What reaches a terminal."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.cli.output import (
    clean,
    duration,
    narrowed,
    pair_lines,
    plain_table,
    plural,
    side_by_side,
    size,
    typed,
    wrapped,
)

from .conftest import BODY, DLM_ID, HEADER, Dlm, Train, spawn

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m\rover\x08\x7f"


def controls(text: str) -> list[str]:
    return [char for char in text if (ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160]


@given(st.text())
def test_clean_leaves_no_control_character_and_nothing_else_changes(text: str) -> None:
    shown = clean(text)
    assert controls(shown) == []
    assert "".join(f"\\x{ord(char):02x}" if controls(char) else char for char in text) == shown


@given(st.text(), st.integers(0, 20))
def test_cleaning_piece_by_piece_is_cleaning_the_whole(text: str, cut: int) -> None:
    assert clean(text[:cut]) + clean(text[cut:]) == clean(text)


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_a_table_has_one_line_per_row_whatever_the_cells_hold(rows: list[tuple[str, str]]) -> None:
    lines = plain_table(("a", "b"), rows).split("\n")
    assert len(lines) == len(rows) + 1
    assert controls("".join(lines)) == []


def test_columns_align_by_cells() -> None:
    assert plain_table(("name", "n"), [("a", "1"), ("日本", "1000")], right=("n",)) == (
        "name     n\na        1\n日本  1000"
    )


def test_pairs_keep_their_column() -> None:
    assert pair_lines({"a": "one\ntwo", "bcd": "three"}) == ["  a    one", "       two", "  bcd  three"]


def test_on_a_narrow_terminal_pairs_break_between_words_and_stand_under_long_names() -> None:
    assert pair_lines({"a": "one two three four five six"}, 30) == [
        "  a  one two three four five",
        "     six",
    ]
    assert pair_lines({"a long name it is": "one two three", "b": "c"}, 40) == [
        "  a long name it is",
        "    one two three",
        "  b",
        "    c",
    ]


@given(st.lists(st.text("ab ", max_size=8), max_size=20), st.integers(1, 40))
def test_wrapping_keeps_every_word_whole(words: list[str], width: int) -> None:
    lines = wrapped(" ".join(words), width)
    assert " ".join(lines).split() == " ".join(words).split()
    assert all(len(line) <= width or " " not in line.strip() for line in lines)


@given(st.integers(0, 60), st.permutations(["run", "kind", "loss"]))
def test_a_table_loses_spare_columns_in_their_order_and_no_others(width: int, spare: list[str]) -> None:
    columns, rows = ("run", "kind", "loss", "version"), [("12", "sft", "0.5", "v0001")]
    shown, cells = narrowed(columns, rows, spare, width)
    gone = [name for name in columns if name not in shown]
    assert set(gone) == set(spare[: len(gone)])
    assert [len(row) for row in cells] == [len(shown)]
    if gone:  # one column more would not have fitted
        kept, more = narrowed(columns, rows, spare[: len(gone) - 1], 0)
        assert max(map(len, plain_table(kept, more, kept).splitlines())) > width
    assert narrowed(columns, rows, spare, None) == (columns, rows)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (999_700, "1 MB"),
        (12_345_678, "12.3 MB"),
        (2 * 10**12, "2 TB"),
    ],
)
def test_size(n_bytes: int, text: str) -> None:
    assert size(n_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (247, "4:07 min"),
        (3723, "1:02:03 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plural_and_typed() -> None:
    assert [plural(count, "step") for count in (0, 1, 2000)] == ["0 steps", "1 step", "2,000 steps"]
    assert typed("dlm", "show", "my notes.dlm") == "dlm show 'my notes.dlm'"


def test_two_answers_off_a_terminal_stand_under_each_other() -> None:
    assert side_by_side(("v0001", "one"), ("v0002", HOSTILE)).startswith("== v0001\none\n\n== v0002\n")
    assert controls(side_by_side(("a", HOSTILE), ("b", HOSTILE))) == []


def test_hostile_documents_and_records_reach_no_terminal_raw(dlm: Dlm, document: Path, train: Train) -> None:
    train(status="failed", message=HOSTILE)
    outputs = [dlm("show", "notes.dlm").output, dlm("metrics", "notes.dlm").output]
    document.write_text(HEADER + BODY + f"\n:: {HOSTILE} ::\n### Qx{HOSTILE}\n", encoding="utf-8", newline="")
    outputs += [dlm("check", "notes.dlm", "--json").output, dlm("check", "notes.dlm").output]
    document.write_text(
        f"---\ndlm_id: {DLM_ID}\nbase_model: {json.dumps(HOSTILE)}\n\x1b[31m: 1\n---\n{BODY}",
        encoding="utf-8",
    )
    outputs += [dlm("check", "notes.dlm", expect=1).output, dlm("show", "notes.dlm").output]
    outputs += [dlm("init", "new.dlm", "--base", HOSTILE.replace("\x00", ""), expect=2).output]
    outputs += [dlm(HOSTILE, expect=2).output, dlm("show", f"no{HOSTILE}", expect=2).output]
    for output in outputs:
        assert controls(output) == []


def test_hostile_bytes_in_arguments(document: Path) -> None:
    done = spawn("show", b"caf\xe9\xff.dlm".decode("utf-8", "surrogateescape"))
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_values_without_json_numbers_are_written_as_text(dlm: Dlm, train: Train) -> None:
    train(losses=(1.0, math.nan, math.inf))
    found = dlm.json("metrics", "notes.dlm")["data"]["metrics"]["train_loss"]
    assert found["values"] == [1.0, "NaN", "Infinity"]
    assert found["best"] == 1.0
