"""Files as they come: other separators and encodings, appended logs, cut-off ends. The right curves, or a clear error."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.curves import CurveFileError, CurveRun, read_curves
from dlm.curves.formats import table
from dlm.curves.formats.numbers import plain_numbers
from dlm.curves.readers import read_curves_from

PLAIN = "step,train_loss,valid_loss\n1,2.0,\n2,0,1.5\n3,1.25,\n"
RIGHT = {"train_loss": [(1, 2.0), (2, 0.0), (3, 1.25)], "valid_loss": [(2, 1.5)]}


def read(content: bytes | str) -> CurveRun:
    data = content if isinstance(content, bytes) else content.encode()
    return read_curves_from(io.BytesIO(data), where="file.csv")


def curves_of(run: CurveRun) -> dict[str, list[tuple[int, float]]]:
    return {
        name: list(zip(one.steps.tolist(), one.values.tolist(), strict=True))
        for name, one in run.series.items()
    }


def fault(content: bytes | str) -> str:
    with pytest.raises(CurveFileError) as caught:
        read(content)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (PLAIN.encode(), ""),
        (PLAIN.rstrip("\n").encode() + b"\n", ""),
        (b"\xef\xbb\xbf" + PLAIN.encode(), "byte order mark"),
        (PLAIN.replace("\n", "\r\n").encode(), ""),
        (PLAIN.replace("\n", "\r").encode(), ""),
        (PLAIN.encode("utf-16"), "UTF-16"),
        (PLAIN.encode("utf-16-be"), "UTF-16"),
        (PLAIN.encode("utf-16-le"), "UTF-16"),
        (PLAIN.replace(",", ";").encode(), "semicolons"),
        (PLAIN.replace(",", "\t").encode(), "tabs"),
        (PLAIN.replace(",", "|").encode(), "bars"),
        (PLAIN.replace(",", ";").replace(".", ",").encode(), "decimal commas"),
        (b"\n\n" + PLAIN.encode(), ""),
        (PLAIN.replace("2,0,1.5", '"2","0","1.5"').encode(), ""),
        (PLAIN.replace("2,0,1.5\n", "\n2, 0 ,1.5\n\n").encode(), ""),
        (PLAIN.replace("1,2.0,", "1.0,2.0,null").encode(), ""),
        (PLAIN.encode() + b"4,0.7", "breaks off"),
        (PLAIN.encode() + b"4,", "breaks off"),
        (PLAIN.replace("2,0,1.5\n3,1.25,\n", "3,1.25,\n2,0,1.5\n").encode(), "not in order"),
        (PLAIN.replace("1,2.0,\n", "1,2.0\n").encode(), "fewer cells"),
        (PLAIN.replace("\n", ",\n").encode(), ""),  # a comma at every end
        (PLAIN.encode() + PLAIN.encode(), "header stands in it 2 times"),
    ],
)
def test_the_right_curves_come_out(content: bytes, problem: str) -> None:
    run = read(content)
    assert curves_of(run) == RIGHT
    assert problem in " ".join(run.problems)
    assert bool(run.problems) == bool(problem)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\n \n\xef\xbb\xbf", "the file is empty"),
        (b"\xff\xfe", "the file is empty"),
        ("step,train_loss\n", "not one point"),
        ("step,train_loss\n1,\n2,\n", "not one point"),
        ("1,2.5,3\n2,2.4,\n", "numbers in the first line"),
        ("loss,accuracy\n1,2\n", "no column holds the step"),
        ("step\n1\n", "no column beside the step"),
        ("step,train_loss\n1,2.0\n2,oops\n", "file.csv:3: column 2: train_loss is no number"),
        ("step,train_loss\n1,2.0\nx,1\n", "file.csv:3: column 1: a step is no whole number"),
        ("step,train_loss\n1.5,2.0\n", "a step is no whole number"),
        ("step,train_loss\n-1,2.0\n", "a step is no whole number"),
        ("step,train_loss,valid_loss\n1;2.5;\n2;1.2;1\n", "file.csv:2: column 1: a step is no whole number"),
        ("step,train_loss,valid_loss\n1,2,5,7\n", "file.csv:2: a row has more cells than the header"),
        (b"step,train_loss\n1,\xe9\n", "not UTF-8 text at byte 18"),
        (bytes(range(256)), "zero bytes"),
        ("[1, 2]", "no known shape"),
        ('{"a": 1}', "not one point"),
        ('{"object": "list", "data": [{"step_number": "x", "metrics": {}}]}', "a step is no whole number"),
        ('{"log_history": [{"loss": 2}]}', "entry 1: a row of log_history has no step"),
        ('{"log_history": [{"loss": 2, "step": 1},', "file.csv:1:41: not JSON"),
        ('{"step": 1, "loss": 2}\n{"step": 2, "loss": \n{"step": 3, "loss": 1}\n', "file.csv:2:20: not JSON"),
        ('{"step": 1, "loss": 2}\n[3]\n', "file.csv:2: a line is no object"),
        ('{"step": 1.5, "loss": 2}\n{"step": 2, "loss": 1}\n', "file.csv:1: a step is no whole number"),
        ("[" * 100_000, "nested too deeply"),
        ('{"step": 1, "loss": ' + "9" * 5000 + "}", "thousands of digits"),
        ('{"data": {"metrics": {"a": {"steps": [1], "values": []}}}}', "steps and values of one length"),
    ],
)
def test_a_clear_error_comes_out(content: bytes | str, words: str) -> None:
    message = fault(content)
    assert words in message
    assert "file.csv" in message


def test_a_missing_file_a_folder_and_one_without_curves(tmp_path: Path) -> None:
    with pytest.raises(CurveFileError, match="no such file"):
        read_curves(tmp_path / "nowhere.csv")
    with pytest.raises(CurveFileError, match="a folder without curves"):
        read_curves(tmp_path)


def test_nan_and_infinity_are_values_where_they_are_spelt_out() -> None:
    run = read("step,train_loss\n1,nan\n2,inf\n3,-Infinity\n4,1e400\n")
    values = run.series["train_loss"].values.tolist()
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, math.inf]


def test_nan_as_the_filling_of_a_sparse_column_is_an_empty_cell() -> None:
    run = read("step,train_loss,valid_loss\n1,2,nan\n2,2,nan\n3,2,1.5\n4,2,nan\n5,2,nan\n6,2,1.4\n")
    assert curves_of(run)["valid_loss"] == [(3, 1.5), (6, 1.4)]
    assert "taken for empty cells" in run.problems[0]
    blown = read("step,train_loss,valid_loss\n1,2,1.5\n2,2,nan\n3,2,nan\n4,2,nan\n")
    assert len(blown.series["valid_loss"]) == 4


def test_a_resumed_log_keeps_the_last_row_of_each_step() -> None:
    run = read("step,train_loss\n1,2.0\n2,1.5\n3,1.2\n2,1.4\n3,1.1\n4,1.0\n")
    assert curves_of(run) == {"train_loss": [(1, 2.0), (2, 1.4), (3, 1.1), (4, 1.0)]}
    assert run.repeats is not None
    assert (run.repeats.rows, run.repeats.steps, run.repeats.first, run.repeats.last) == (2, 2, 2, 3)
    assert run.logged_rows == 6


def test_columns_of_text_unnamed_and_repeated_columns() -> None:
    run = read("step,train_loss,note,,train_loss\n1,2,hello,5,9\n2,1,,6,8\n")
    assert run.unknown_columns == ("column 4", "train_loss (column 5)", "note")
    assert "repeats the name train_loss" in run.problems[0]


def test_a_name_cannot_write_to_a_terminal() -> None:
    run = read('{"step": 1, "\\u001b[2Jloss\\n\\ud800": 2}\n{"step": 2, "x": 1}\n')
    assert set(run.series) == {"?[2Jloss ?", "x"}


def test_a_row_beyond_the_first_block_is_named_by_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_BLOCK", 64)
    rows = [f"{i},{i / 10}" for i in range(1, 200)]
    assert len(read("step,train_loss\n" + "\n".join(rows) + "\n").series["train_loss"]) == 199
    rows[150] = "151,oops"
    assert "file.csv:152: column 2" in fault("step,train_loss\n" + "\n".join(rows) + "\n")
    rows[150] = '151,"15.1'
    assert "file.csv:" in fault("step,train_loss\n" + "\n".join(rows) + "\n")


CELLS = st.one_of(
    st.just(""),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(0, 10**6).map(str),
    st.sampled_from(["1-2", "1e", "+", "nan", "1.2.3", " 1", "é", '"1"']),
)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), min_size=1, max_size=6), st.sampled_from(",;\t"))
def test_the_quick_way_takes_nothing_the_csv_module_would_read_otherwise(
    rows: list[list[str]], sign: str
) -> None:
    width = len(rows[0])
    found = plain_numbers("".join(sign.join(row) + "\n" for row in rows), sign, width)
    if found is None:
        return
    assert found.shape == (len(rows), width)
    for read_row, row in zip(found.tolist(), rows, strict=True):
        for number, cell in zip(read_row, row, strict=True):
            assert math.isnan(number) if cell == "" else number == float(cell)


FRAGMENTS = st.sampled_from(
    [
        b"step,train_loss\n",
        b"step;loss;valid_loss\n",
        b"1,2.5\n",
        b"2,,nan\n",
        b"3;1,5;\n",
        b'"',
        b"\n",
        b"\r\n",
        b"# method: dpo\n",
        b'{"step": 1, "loss": 2.0}\n',
        b'{"log_history": [{"step": 1, "loss": NaN}]}',
        b'{"object": "list", "data": [{"step_number": 5, "metrics": {"valid_loss": 1}}]}',
        b'{"data": {"metrics": {"a": {"steps": [1], "values": [null]}}}}',
        b'{"method": "dpo", "saved_steps": [1, "x"], "planned_steps": 1e999}\n',
        b"[",
        b"{",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x00",
        b"99999999999999999999999,1\n",
        b"1e9999,1\n",
    ]
)


@given(st.lists(st.one_of(FRAGMENTS, FRAGMENTS, st.binary(max_size=12)), max_size=12).map(b"".join))
def test_no_bytes_give_anything_but_a_run_or_a_curve_file_error(data: bytes) -> None:
    try:
        run = read(data)
    except CurveFileError as error:
        said = error
    else:
        said = None
    if said is not None:
        assert said.message
        assert said.where.startswith("file.csv")
        return
    assert run.series
    for one in run.series.values():
        assert (one.steps[1:] > one.steps[:-1]).all()
        assert one.name == one.name.strip()
