"""Files of pairs and of scored answers."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.document.json_lines import MAX_PROBLEMS
from dlm.errors import DocumentError, UsageError
from dlm.training.pair_files import (
    MAX_RESPONSES,
    Scalar,
    pairs_from_scalars,
    read_pairs_file,
    read_scalars_file,
)

pytestmark = pytest.mark.torch


def user(text: object) -> dict[str, object]:
    return {"role": "user", "content": text}


def assistant(text: object) -> dict[str, object]:
    return {"role": "assistant", "content": text}


def system(text: object) -> dict[str, object]:
    return {"role": "system", "content": text}


def write(folder: Path, *items: Any) -> Path:
    """A file of these lines; texts stand as they are."""
    file = folder / "data.jsonl"
    file.write_text(
        "\n".join(item if isinstance(item, str) else json.dumps(item) for item in items), encoding="utf-8"
    )
    return file


SHAPES = {
    "trl": lambda p, c, r: {"prompt": p, "chosen": c, "rejected": r},
    "trl conversational": lambda p, c, r: {
        "prompt": [user(p)],
        "chosen": [assistant(c)],
        "rejected": [assistant(r)],
    },
    "trl implicit prompt": lambda p, c, r: {
        "chosen": [user(p), assistant(c)],
        "rejected": [user(p), assistant(r)],
    },
    "ultrafeedback": lambda p, c, r: {
        "prompt": p,
        "prompt_id": "ab12",
        "chosen": [user(p), assistant(c)],
        "rejected": [user(p), assistant(r)],
    },
    "openai": lambda p, c, r: {
        "input": {"messages": [user(p)], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [assistant(c)],
        "non_preferred_output": [assistant(r)],
    },
    "parts and nulls": lambda p, c, r: {
        "prompt": [system(""), user([{"type": "text", "text": p}])],
        "chosen": [{**assistant(c), "tool_calls": None, "refusal": None}],
        "rejected": [assistant(r)],
        "tools": None,
    },
}
writable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1).filter(
    str.strip
)


@given(st.sampled_from(sorted(SHAPES)), writable, writable, writable)
def test_every_shape_reads_back_character_for_character(
    tmp_path_factory: pytest.TempPathFactory, shape: str, prompt: str, chosen: str, rejected: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "shapes.jsonl"
    line = json.dumps(SHAPES[shape](prompt, chosen, rejected), ensure_ascii=len(prompt) % 2 == 0)
    file.write_text(f"\ufeff\n{line}\n", encoding="utf-8")
    (pair,) = read_pairs_file(file)
    assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, chosen, rejected)
    assert (pair.origin, pair.line, pair.mined, pair.margin) == (str(file), 2, False, None)


@pytest.mark.big  # importing trl takes seconds
@pytest.mark.parametrize("shape", ["trl conversational", "trl implicit prompt"])
def test_trl_takes_the_same_pair_from_a_line(tmp_path: Path, shape: str) -> None:
    from trl.data_utils import maybe_extract_prompt

    item = SHAPES[shape]("p", "c", "r")
    (pair,) = read_pairs_file(write(tmp_path, item))
    theirs = maybe_extract_prompt(item)
    assert theirs == SHAPES["trl conversational"](pair.prompt, pair.chosen, pair.rejected)


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("names", [("chosen_score", "rejected_score"), ("score_chosen", "score_rejected")])
def test_scores_in_both_spellings(tmp_path: Path, shape: str, names: tuple[str, str]) -> None:
    item = {**SHAPES[shape]("p", "c", "r"), names[0]: 8, names[1]: 7.5}
    (pair,) = read_pairs_file(write(tmp_path, item))
    assert (pair.chosen_score, pair.rejected_score, pair.margin) == (8.0, 7.5, 0.5)


def test_null_scores_are_none(tmp_path: Path) -> None:
    item = {**SHAPES["trl"]("p", "c", "r"), "chosen_score": None, "rejected_score": None}
    assert read_pairs_file(write(tmp_path, item))[0].margin is None


OK = SHAPES["trl"]("p", "c", "r")
BAD_PAIRS: dict[str, tuple[Any, str]] = {
    "no json": ('{"prompt": ', "not JSON"),
    "two values": ('{"prompt": "p"} {"prompt": "q"}', "not JSON"),
    "no object": ([1], "expected an object, found a list"),
    "huge number": ('{"prompt": ' + "1" * 5000 + "}", "cannot be read"),
    "depth": ("[" * 100_000, "cannot be read"),
    "nothing": ({}, "none of them"),
    "half": ({"prompt": "p", "chosen": "c"}, "found chosen, prompt"),
    "no text": ({**OK, "rejected": ""}, "found chosen, prompt; empty: rejected"),
    "null": ({**OK, "chosen": None, "rejected": []}, "found prompt; empty: chosen, rejected"),
    "no prompt": ({"chosen": "Human: p Assistant: c", "rejected": "Human: p Assistant: r"}, "no prompt"),
    "no prompt in turns": ({"chosen": [assistant("c")], "rejected": [assistant("r")]}, "no prompt"),
    "unknown key": ({**OK, "margin": 2}, "'margin' (take columns"),
    "empty": ({**OK, "chosen": " \n"}, "chosen: expected a text that is not empty"),
    "number": ({**OK, "chosen": 3}, "chosen: expected a text, found a number"),
    "nul": ({**OK, "rejected": "a\x00"}, "NUL"),
    "surrogate": ('{"prompt": "p", "chosen": "\\ud800", "rejected": "r"}', "lone surrogate"),
    "one score": ({**OK, "chosen_score": 1}, "both scores or none"),
    "mixed scores": ({**OK, "chosen_score": 1, "score_rejected": 0}, "both scores or none"),
    "four scores": (
        {**OK, "chosen_score": 1, "rejected_score": 0, "score_chosen": 1, "score_rejected": 0},
        "both scores or none",
    ),
    "nan": ({**OK, "chosen_score": math.nan, "rejected_score": 0}, "chosen_score: expected a finite number"),
    "infinite": ({**OK, "chosen_score": 1, "rejected_score": -math.inf}, "rejected_score: expected a finite"),
    "too large": ({**OK, "chosen_score": 10**400, "rejected_score": 0}, "finite"),
    "true": ({**OK, "chosen_score": True, "rejected_score": 0}, "expected a number, found true"),
    "text score": ({**OK, "chosen_score": "9", "rejected_score": 0}, "expected a number, found a text"),
    "system": (
        {
            "prompt": [system("Be brief."), user("p")],
            "chosen": [assistant("c")],
            "rejected": [assistant("r")],
        },
        "into the header as system_prompt",
    ),
    "several turns": (
        {
            "prompt": [user("p"), assistant("a"), user("q")],
            "chosen": [assistant("c")],
            "rejected": [assistant("r")],
        },
        "found user, assistant, user; conversations of several turns are not supported",
    ),
    "long answer": (
        {"prompt": "p", "chosen": [assistant("c"), user("q"), assistant("d")], "rejected": "r"},
        "several turns",
    ),
    "no answer": (
        {"prompt": "p", "chosen": [user("p")], "rejected": "r"},
        "chosen: expected one turn (assistant)",
    ),
    "tool calls": (
        {"prompt": "p", "chosen": [{**assistant("c"), "tool_calls": [{"id": 1}]}], "rejected": "r"},
        "'tool_calls'",
    ),
    "picture": (
        {"prompt": [user([{"type": "image_url", "image_url": "x"}])], "chosen": "c", "rejected": "r"},
        "prompt (user): expected a text, found a list",
    ),
    "strangers": (
        {"chosen": [user("p"), assistant("c")], "rejected": [user("q"), assistant("r")]},
        "chosen and rejected do not begin with the same question",
    ),
    "stranger to prompt": (
        {"prompt": "p", "chosen": [user("q"), assistant("c")], "rejected": [user("q"), assistant("r")]},
        "do not begin with the same question",
    ),
    "two shapes": ({**OK, **SHAPES["openai"]("p", "c", "r")}, "expected the keys"),
    "tools": (
        {
            "input": {"messages": [user("p")], "tools": [{"type": "function"}]},
            "preferred_output": [assistant("c")],
            "non_preferred_output": [assistant("r")],
        },
        "tools",
    ),
    "openai input of text": (
        {"input": "p", "preferred_output": [assistant("c")], "non_preferred_output": [assistant("r")]},
        "expected an object",
    ),
    "openai without messages": (
        {
            "input": {"tools": []},
            "preferred_output": [assistant("c")],
            "non_preferred_output": [assistant("r")],
        },
        "no input.messages",
    ),
    "nameless message": ({"prompt": [{"content": "p"}], "chosen": "c", "rejected": "r"}, "with a role"),
}


@pytest.mark.parametrize("name", sorted(BAD_PAIRS))
def test_a_bad_line_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    item, message = BAD_PAIRS[name]
    with pytest.raises(DocumentError) as fault:
        read_pairs_file(write(tmp_path, OK, "", item))
    (problem,) = fault.value.problems
    assert problem.line == 3
    assert problem.code in ("pairs-json", "pairs-shape")
    assert message in problem.message


def test_all_bad_lines_are_reported_at_once_up_to_a_limit(tmp_path: Path) -> None:
    file = write(tmp_path, OK, *[item for item, _ in BAD_PAIRS.values()], OK)
    with pytest.raises(DocumentError) as fault:
        read_pairs_file(file)
    assert [problem.line for problem in fault.value.problems] == list(range(2, 2 + len(BAD_PAIRS)))
    file = write(tmp_path, *["{}"] * (MAX_PROBLEMS + 50))
    with pytest.raises(DocumentError) as fault:
        read_pairs_file(file)
    assert len(fault.value.problems) == MAX_PROBLEMS + 1
    assert f"has {MAX_PROBLEMS + 50} problems" in fault.value.message
    assert "50 more" in fault.value.problems[-1].message


def test_the_documents_own_system_prompt_may_stand_in_a_row(tmp_path: Path) -> None:
    item = {"prompt": [system("Be brief.\n"), user("p")], "chosen": "c", "rejected": "r"}
    (pair,) = read_pairs_file(write(tmp_path, item), system_prompt="Be brief.")
    assert pair.prompt == "p"
    with pytest.raises(DocumentError, match="system_prompt"):
        read_pairs_file(write(tmp_path, item), system_prompt="Be long.")


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe"])
def test_a_file_that_gives_no_pairs_is_misuse(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "pairs.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match="--pairs"):
        read_pairs_file(file)


# --- scored answers -------------------------------------------------------------------------------------------


def test_scalars_in_every_spelling(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        {"prompt": "p", "response": "a", "score": 1},
        {"prompt": [user("p")], "completion": [assistant("b")], "reward": -0.5},
        {"prompt": "p", "response": [user("p"), assistant("c")], "score": 0.0, "id": 7},
    )
    assert read_scalars_file(file) == [
        Scalar("p", "a", 1.0, str(file), 1),
        Scalar("p", "b", -0.5, str(file), 2),
        Scalar("p", "c", 0.0, str(file), 3),
    ]


def test_bad_scalars_are_listed(tmp_path: Path) -> None:
    good = {"prompt": "p", "response": "a", "score": 1}
    bad = [
        {**good, "completion": "b"},
        {**good, "reward": 1},
        {"prompt": "p", "response": "a"},
        {**good, "score": "high"},
        {**good, "score": math.nan},
        {**good, "label": True},
        {**good, "response": ""},
        {**good, "response": [user("q"), assistant("a")]},
        {**good, "prompt": "\x00"},
    ]
    with pytest.raises(DocumentError) as fault:
        read_scalars_file(write(tmp_path, good, *bad))
    assert [problem.line for problem in fault.value.problems] == list(range(2, 2 + len(bad)))
    assert {problem.code for problem in fault.value.problems} == {"scalars-shape"}


def scalars(*scores: float, prompt: str = "p") -> list[Scalar]:
    return [Scalar(prompt, f"answer {i}", score, "s.jsonl", i + 1) for i, score in enumerate(scores)]


def test_answers_far_enough_apart_make_pairs_best_first() -> None:
    pairs, counts = pairs_from_scalars([*scalars(1, 3, 2), *scalars(5, prompt="lone")], 1.0)
    assert [(p.chosen, p.rejected, p.chosen_score, p.rejected_score) for p in pairs] == [
        ("answer 1", "answer 0", 3, 1)
    ]
    assert pairs[0].place == "s.jsonl:2"
    assert (counts.scalars, counts.prompts, counts.lone, counts.below_margin, counts.pairs) == (4, 2, 1, 2, 1)
    pairs, _ = pairs_from_scalars(scalars(1, 3, 2), 0.0)
    assert [(p.chosen_score, p.rejected_score) for p in pairs] == [(3, 2), (3, 1), (2, 1)]


def test_equal_scores_make_no_pair_and_the_gap_is_as_written() -> None:
    assert pairs_from_scalars(scalars(1, 1), 0.0)[0] == []
    assert pairs_from_scalars(scalars(0.8, 0.5), 0.3)[0] == []  # 0.30000000000000004 in floating point


def test_an_answer_scored_twice_counts_once_with_the_mean() -> None:
    votes = [
        Scalar("p", "a", 1, "s", 1),
        Scalar("p", "b", 0, "s", 2),
        Scalar("p", "a", -1, "s", 3),
        Scalar("p", "b", -1, "s", 4),
    ]
    (pair,), counts = pairs_from_scalars(votes, 0.0)
    assert (pair.chosen, pair.rejected, pair.margin) == ("a", "b", 0.5)
    assert counts.repeated == 2


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=60), st.integers(0, 5))
def test_pairs_of_scalars_add_up(scores: list[int], min_margin: int) -> None:
    pairs, counts = pairs_from_scalars(scalars(*scores), min_margin)
    kept = len(scores) - counts.over_limit
    assert kept == min(len(scores), MAX_RESPONSES)
    assert len(pairs) == counts.pairs
    assert counts.pairs + counts.below_margin == kept * (kept - 1) // 2
    assert all(p.margin is not None and p.margin > min_margin for p in pairs)
    assert len({p.key for p in pairs}) == len(pairs)
    if max(scores) - min(scores) > min_margin:  # the best and the worst are always compared
        assert (pairs[0].chosen_score, min(p.rejected_score or 0 for p in pairs)) == (
            max(scores),
            min(scores),
        )
    first = [p.chosen_score or 0 for p in pairs]
    assert all(a >= b for a, b in pairwise(first))
