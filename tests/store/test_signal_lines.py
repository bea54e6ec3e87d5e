"""Signals and runs as JSON lines: what is written comes back as it was, and what is wrong is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.document.json_lines import LineError
from dlm.store import Defaults, NewSignal, RunLine, SeriesLine, SignalLine, line_of_signal, read_line
from hostile_text import hostile, writable

DEFAULTS = Defaults(judge="nobody", scale="none")
texts = writable | hostile.filter(bool)
scores = st.floats(allow_nan=False, allow_infinity=False)
words = st.just("") | texts
more = {
    "scale": texts,
    "judge": texts,
    "reason": words,
    "provenance": st.dictionaries(texts, texts | st.integers() | st.none(), max_size=3),
    "created_at": st.sampled_from(["2026-04-23T18:42:11.042Z", "2026-01-31T10:03:11+02:00"]),
    "source": st.sampled_from(["hand", "mined", "vote", "grader", "experiment"]),
}
pairs = (
    st.fixed_dictionaries(
        {
            **more,
            "kind": st.just("pair"),
            "prompt": texts,
            "chosen": texts,
            "rejected": texts,
            "chosen_score": st.none() | scores,
            "rejected_score": st.none() | scores,
        }
    )
    .map(lambda values: NewSignal(**values))
    .filter(lambda pair: pair.chosen != pair.rejected)
)
scalars = st.fixed_dictionaries(
    {**more, "kind": st.just("scalar"), "prompt": texts, "chosen": texts, "chosen_score": scores}
).map(lambda values: NewSignal(**values))


@given(pairs | scalars, st.lists(texts, max_size=2), st.booleans())
def test_a_signal_comes_back_as_it_was(signal: NewSignal, used_by: list[str], only_used: bool) -> None:
    only_used = only_used and bool(used_by)
    written = json.dumps(line_of_signal(signal, used_by, only_used=only_used), ensure_ascii=False)
    read = read_line(json.loads(written), 3, DEFAULTS, "data.jsonl:3")
    assert read == SignalLine(3, signal, tuple(used_by), only_used)


def read(item: Any) -> Any:
    return read_line(item, 1, DEFAULTS, "data.jsonl:1")


def test_lines_of_other_tools() -> None:
    plain = read(
        {"prompt": "p", "chosen": "c", "rejected": "r", "chosen_score": 2, "rejected_score": 1}
    ).signal
    assert plain == NewSignal(
        "pair", "hand", "p", "c", "r", 2.0, 1.0, "none", "nobody", "", {"from": "data.jsonl:1"}
    )
    openai = {
        "input": {"messages": [{"role": "user", "content": "p"}]},
        "preferred_output": [{"role": "assistant", "content": "c"}],
        "non_preferred_output": [{"role": "assistant", "content": "r"}],
    }
    assert read(openai).signal.rejected == "r"
    scored = read({"prompt": "p", "response": "a", "score": 7.5}).signal
    assert (scored.kind, scored.chosen, scored.chosen_score, scored.source) == ("scalar", "a", 7.5, "hand")
    for label, score in ((True, 1.0), (False, -1.0)):
        vote = read({"prompt": "p", "completion": "a", "label": label}).signal
        assert (vote.source, vote.scale, vote.chosen_score) == ("vote", "vote", score)


def test_runs_and_their_curves() -> None:
    run = read({"type": "run", "ref": "a", "kind": "preference", "method": "dpo", "planned_steps": 3})
    assert isinstance(run, RunLine)
    assert (run.ref, run.status, run.spec.planned_steps) == ("a", "complete", 3)
    curve = read(
        {"type": "series", "run": "a", "name": "loss", "steps": [1, 2, 5], "values": [1, None, "-Infinity"]}
    )
    assert isinstance(curve, SeriesLine)
    assert curve.steps == (1, 2, 5)
    assert curve.values[0] == 1.0
    assert curve.values[1] != curve.values[1]
    assert curve.values[2] == -float("inf")
    assert curve.times is None


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ([], "expected a type"),
        ({"type": "rumour"}, "type: expected one of"),
        ({"type": ["pair"]}, "type: expected one of"),
        ({"type": "pair", "prompt": "p", "chosen": "c"}, "rejected is missing"),
        ({"type": "pair", "prompt": "p", "chosen": "c", "rejected": "c"}, "equal"),
        ({"type": "pair", "prompt": "p", "chosen": "c", "rejected": "r", "source": "me"}, "source: expected one of"),
        ({"type": "pair", "prompt": "p", "chosen": "c\x00", "rejected": "r"}, "NUL"),
        ({"type": "pair", "prompt": "p", "chosen": "c", "rejected": "r", "chosen_score": "9"}, "chosen_score"),
        ({"type": "pair", "prompt": "p", "chosen": "c", "rejected": "r", "rank": 3}, "'rank'"),
        ({"type": "pair", "prompt": "p", "chosen": "c", "rejected": "r", "only_used": True}, "only_used"),
        ({"type": "pair", "prompt": "p", "chosen": "c", "rejected": "r", "used_by": "a"}, "used_by"),
        ({"type": "pair", "prompt": "p", "chosen": "c", "rejected": "r", "created_at": "soon"}, "created_at"),
        ({"type": "pair", "prompt": "p", "chosen": "c", "rejected": "r", "provenance": ["a"]}, "provenance"),
        ({"type": "scalar", "prompt": "p", "response": "a"}, "score: expected a number"),
        ({"type": "scalar", "prompt": "p", "response": "a", "score": True}, "score"),
        ({"prompt": "p", "completion": "a", "label": 1}, "label: expected true or false"),
        ({"type": "run", "kind": "preference"}, "ref"),
        ({"type": "run", "ref": "a", "kind": "walk"}, "kind: expected one of"),
        ({"type": "run", "ref": "a", "kind": "sft", "status": "running"}, "status: expected one of"),
        ({"type": "run", "ref": "a", "kind": "sft", "seed": -1}, "seed"),
        ({"type": "run", "ref": "a", "kind": "sft", "seed": 2**70}, "seed"),
        ({"type": "run", "ref": "a", "kind": "sft", "recipe": 3}, "recipe"),
        ({"type": "series", "run": "a", "name": "loss", "steps": [1, 1], "values": [1, 2]}, "rise"),
        ({"type": "series", "run": "a", "name": "loss", "steps": [1], "values": [1, 2]}, "same length"),
        ({"type": "series", "run": "a", "name": "loss", "steps": [1.5], "values": [1]}, "whole numbers"),
        ({"type": "series", "run": "a", "name": "loss", "steps": [1], "values": ["x"]}, "values"),
        ({"type": "series", "run": "a", "name": "loss", "steps": [1], "values": [1], "times": []}, "same|as many|"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(item: Any, said: str) -> None:
    if said.endswith("|"):  # an empty list says nothing: times are missing
        assert read(item).times is None
        return
    with pytest.raises(LineError, match=said):
        read(item)
