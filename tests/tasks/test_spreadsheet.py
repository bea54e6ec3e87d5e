"""Cases are a function of their seed and index; row matching moves exactly the numbers it should."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.errors import DlmError
from dlm.tasks import spreadsheet
from dlm.tasks.draw import Draw
from dlm.tasks.sheets import SpreadsheetCase, match_rows
from dlm.tasks.spreadsheet import SPLITS, case_at, clean_header, drop_rows, generate, messy_money, of_split

SOME = settings(max_examples=min(settings.default.max_examples, 300))
cases = st.builds(
    case_at, st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from([(3, 3), (8, 12), (5, 30)])
)


def _body(case: SpreadsheetCase) -> list[str]:
    return case.gold.split("\n")[1:]


def _answer(case: SpreadsheetCase, body: list[str]) -> str:
    return "\n".join((case.gold.split("\n")[0], *body))


def _thousands(cell: str) -> int:
    """What a messy amount means, read independently of the generator."""
    text = cell.removeprefix("$")
    if text.endswith("M"):
        return round(float(text[:-1]) * 1000)
    return int(text[:-1]) if text.endswith("K") else int(text) // 1000


def test_bytes_of_known_seeds_never_change():
    text = "".join(case.prompt + "\0" + case.gold + "\0" for case in generate(200, 20))
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "101e0dbc8d8011e8ddd2d7b29734781e56a0d1dc02a9cc18bd045e865fba16ba"
    )


@given(st.integers(0, 10**9), st.integers(1, 6), st.integers(1, 6))
def test_a_case_does_not_depend_on_how_many_are_asked_for(seed, few, more):
    assert generate(seed, few)[: min(few, more)] == generate(seed, more)[: min(few, more)]


@given(cases)
def test_gold_is_exact_and_says_what_the_prompt_says(case):
    match = match_rows(case, case.gold)
    assert match.exact
    assert (match.preservation, match.precision, match.unit_accuracy) == (1.0, 1.0, 1.0)
    lines = case.prompt.split("\n")
    assert tuple(map(clean_header, lines[1].split(","))) == case.header
    source = [
        line.split(",") for line in lines[2:] if line.count(",") == 2 and not line.lower().startswith("total")
    ]
    assert [(name, group, _thousands(money)) for name, group, money in source] == [
        (r.name, r.group, r.thousands) for r in case.rows
    ]
    assert len({row.name for row in case.rows}) == len(case.rows)


@given(cases, st.data())
def test_dropping_rows_moves_preservation_only(case, data):
    gone = data.draw(st.sets(st.integers(0, len(case.rows) - 1), min_size=1, max_size=len(case.rows) - 1))
    match = match_rows(case, _answer(case, [line for at, line in enumerate(_body(case)) if at not in gone]))
    assert match.kept == tuple(at for at in range(len(case.rows)) if at not in gone)
    assert (match.surplus, match.unit_accuracy, match.header_right, match.parse_ok) == (0, 1.0, True, True)
    assert not match.all_kept


@given(cases, st.data())
def test_duplicating_a_row_moves_surplus_only(case, data):
    body = _body(case)
    at = data.draw(st.integers(0, len(body) - 1))
    match = match_rows(case, _answer(case, [*body[: at + 1], *body[at:]]))
    assert (match.all_kept, match.surplus, match.unit_accuracy, match.parse_ok) == (True, 1, 1.0, True)
    assert not match.exact


@given(cases, st.data())
def test_a_made_up_row_moves_surplus_only(case, data):
    body = _body(case)
    at = data.draw(st.integers(0, len(body)))
    match = match_rows(case, _answer(case, [*body[:at], "Nobody Known,North,100", *body[at:]]))
    assert (match.all_kept, match.surplus, match.unit_accuracy, match.parse_ok) == (True, 1, 1.0, True)


@given(cases, st.data())
def test_moving_a_row_costs_its_place(case, data):
    body = _body(case)
    here, there = data.draw(st.lists(st.integers(0, len(body) - 1), min_size=2, max_size=2, unique=True))
    moved = body[:here] + body[here + 1 :]
    moved.insert(there, body[here])
    match = match_rows(case, _answer(case, moved))
    assert (len(match.kept), match.surplus) == (len(body) - 1, 1)
    assert (match.unit_accuracy, match.parse_ok) == (1.0, True)


@given(cases, st.data())
def test_a_wrong_unit_moves_unit_accuracy_only(case, data):
    body = _body(case)
    wrong = data.draw(st.sets(st.integers(0, len(body) - 1), min_size=1))
    form = data.draw(st.sampled_from(["{}K", "${}", "{}000", "0{}", "{}.0"]))
    changed = [
        f"{line.rpartition(',')[0]},{form.format(line.rpartition(',')[2])}" if at in wrong else line
        for at, line in enumerate(body)
    ]
    match = match_rows(case, _answer(case, changed))
    assert (match.all_kept, match.surplus, match.parse_ok) == (True, 0, True)
    assert match.units_right == len(body) - len(wrong)


@given(cases)
def test_the_header_is_judged_apart(case):
    wrong = match_rows(case, "\n".join(("Name,Region,Amount", *_body(case))))
    assert (wrong.header_right, wrong.all_kept, wrong.surplus) == (False, True, 0)
    missing = match_rows(case, "\n".join(_body(case)))
    assert (missing.header_right, missing.all_kept, missing.surplus) == (False, True, 0)


@given(cases, st.sampled_from(["```\n{}\n```", "Here is the table:\n{}", "{}\nI hope this helps."]))
def test_fences_and_prose_are_no_table(case, form):
    match = match_rows(case, form.format(case.gold))
    assert not match.parse_ok
    assert match.surplus >= 1
    assert match.all_kept


@given(cases, st.text())
def test_any_text_can_be_matched(case, text):
    match = match_rows(case, text)
    assert 0 <= match.preservation <= 1
    assert 0 <= match.precision <= 1
    assert match.units_right <= len(match.kept) <= match.expected


@given(st.integers(0, 10**6), st.integers(1, 99), st.booleans())
def test_money_means_what_it_says(seed, amount, large):
    thousands = amount * 100 if large else amount * 5
    assert _thousands(messy_money(Draw("money", seed), thousands)) == thousands


def test_an_impossible_request_is_refused():
    with pytest.raises(DlmError, match="row range"):
        case_at(1, 1, (5, 3))
    with pytest.raises(DlmError, match="profile"):
        case_at(1, 1, profile="unknown")
    with pytest.raises(DlmError, match="split"):
        of_split("none")
    assert spreadsheet.PROFILES == ("pocket", "published")


@pytest.mark.parametrize(
    ("profile", "digest"),
    [
        ("pocket", "6957df20f9724a1279be31ed5cdba617341f4e150f6a2dc3138d10c87a4de0df"),
        ("published", "27a77b1050132b56b3b7792fb48631f37e50553004d74dfd6dc934f983c77949"),
    ],
)
def test_bytes_of_the_splits_never_change(profile, digest):
    text = "".join(
        f"{case.prompt}\0{case.gold}\0{drop_rows(case)}\0"
        for name in SPLITS
        for case in of_split(name, profile, count=12)
    )
    assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_the_splits_are_those_of_the_study():
    assert {name: (split.seed, split.count) for name, split in SPLITS.items()} == {
        "train": (100, 240),
        "heldout": (200, 80),
        "stress_heldout": (300, 40),
        "stress_train": (500, 240),
        "preference_train": (600, 80),
        "preference_heldout": (601, 12),
    }
    prompts = [case.prompt for name in SPLITS for case in of_split(name, "published")]
    assert len(set(prompts)) == len(prompts) == 692


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")]


@SOME
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans())
def test_a_published_table_says_what_its_gold_says(seed, index, stress):
    case = case_at(seed, index, None, "published", stress=stress)
    header, *lines = case.prompt.split("\n")[2:]
    extra = [at for at, name in enumerate(_cells(header)) if name in ("Region", "Checked", "Source")]
    assert len(_cells(header)) == 5 + len(extra)
    found = []
    for line in lines:
        cells = [cell for at, cell in enumerate(_cells(line)) if at not in extra]
        if len(cells) != 5 or not cells[0].startswith("Q"):
            continue
        row = [cells[0], *(str(_published_thousands(cell)) for cell in cells[1:3]), *cells[3:]]
        if row not in found:
            found.append(row)
    assert found == [list(row.cells) for row in case.rows]
    assert match_rows(case, case.gold).exact
    assert "M" not in case.gold.replace("Q", "").partition("\n")[2]
    if stress:
        assert 15 <= len(case.rows) == len(lines) <= 25
    else:
        assert 6 <= len(case.rows) <= 18


def _published_thousands(cell: str) -> int:
    """Read independently of the generator."""
    if cell.endswith(" M"):
        return round(float(cell[:-2]) * 1000)
    return int(cell.removeprefix("$").removesuffix("K"))


@SOME
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(spreadsheet.PROFILES))
def test_the_rejected_answer_lost_30_to_70_percent_of_its_rows(seed, index, profile):
    case = case_at(seed, index, None, profile)
    match = match_rows(case, drop_rows(case))
    gone = match.expected - len(match.kept)
    assert 0.3 * match.expected - 0.5 <= gone <= 0.7 * match.expected + 0.5
    assert (match.surplus, match.unit_accuracy, match.header_right, match.parse_ok) == (0, 1.0, True, True)
