"""Pairs out of scored answers: which, how many, and every reason for none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.mining import SKIP_REASONS, Plan, PlannedPair, Question, Rules, plan_pairs
from dlm.mining.similarity import TOO_SIMILAR, similarity
from dlm.store import Candidate, pair_key
from mining_helpers import candidate

Q = Question("Why?", "doc.dlm:3")
TEXTS = ["Because of rain.", "Nobody knows that.", "The sun rises early here.", "Ask again tomorrow at noon."]


def plan(candidates: list[Candidate], threshold: float = 0.1, known: Any = (), **rules: Any) -> Plan:
    return plan_pairs([Q], {Q.key: candidates}, Rules(threshold, **rules), known)


def scored(*scores: float | None, **options: Any) -> list[Candidate]:
    return [candidate(number, TEXTS[number], score, **options) for number, score in enumerate(scores)]


def ids(found: Plan) -> list[tuple[int, int]]:
    return [(pair.chosen.id, pair.rejected.id) for pair in found.pairs]


def test_the_best_meets_the_worst() -> None:
    assert ids(plan(scored(0.3, 0.9, 0.1, 0.5))) == [(1, 2)]


def test_several_pairs_of_a_question_share_no_answer() -> None:
    assert ids(plan(scored(0.3, 0.9, 0.1, 0.5), pairs_per_question=5)) == [(1, 2), (3, 0)]


def test_the_largest_margins_stay() -> None:
    questions = [Question(f"Question {i}?", "") for i in range(4)]
    margins = [0.2, 0.6, 0.4, 0.6]
    groups = {
        question.key: [candidate(10 * i, TEXTS[0], margin), candidate(10 * i + 1, TEXTS[1], 0.0)]
        for i, (question, margin) in enumerate(zip(questions, margins, strict=True))
    }
    found = plan_pairs(questions, groups, Rules(0.1, max_pairs=3))
    assert ids(found) == [(10, 11), (30, 31), (20, 21)]
    assert found.over_limit == 1


def test_a_margin_as_written_reaches_the_threshold() -> None:
    assert ids(plan(scored(0.7, 0.4), threshold=0.3)) == [(0, 1)]  # .7 - .4 is .29999999999999993


def reason(found: Plan) -> str:
    assert not found.pairs
    (skip,) = found.skips
    assert skip.question == Q
    assert skip.detail
    return skip.reason


def test_below_threshold() -> None:
    assert reason(plan(scored(0.3, 0.35, 0.32))) == "below_threshold"
    assert reason(plan(scored(0.3, 0.3), threshold=0)) == "below_threshold"  # equal scores prefer nothing


def test_insufficient_variety() -> None:
    assert reason(plan(scored(0.3))) == "insufficient_variety"
    doubled = [candidate(0, TEXTS[0], 0.3), candidate(1, TEXTS[0], skip="duplicate", attempts=0)]
    assert reason(plan(doubled)) == "insufficient_variety"
    assert reason(plan([])) == "insufficient_variety"


def test_malformed() -> None:
    assert reason(plan([candidate(0, TEXTS[0], 0.3), candidate(1, "", skip="malformed")])) == "malformed"


def test_judge_failed() -> None:
    assert reason(plan(scored(0.3, None, None))) == "judge_failed"
    assert ids(plan(scored(0.3, None, 0.9))) == [(2, 0)]


def test_truncated_answers_lose_but_never_win() -> None:
    whole, cut = candidate(0, TEXTS[0], 0.2), candidate(1, TEXTS[1], 0.9, finish="length")
    assert reason(plan([whole, cut])) == "truncated"
    assert ids(plan([whole, cut], allow_truncated=True)) == [(1, 0)]
    better = candidate(2, TEXTS[2], 1.5)
    assert ids(plan([whole, cut, better])) == [(2, 0)]
    worst = candidate(3, TEXTS[3], 0.0, finish="length")
    assert ids(plan([whole, worst])) == [(0, 3)]


def test_too_similar() -> None:
    long = " ".join(f"word{i}" for i in range(40))
    near = [candidate(0, long, 0.9), candidate(1, long.replace("word7", "other"), 0.1)]
    assert similarity(near[0].text, near[1].text) >= TOO_SIMILAR
    assert reason(plan(near)) == "too_similar"
    assert ids(plan([*near, candidate(2, TEXTS[0], 0.6)])) == [(2, 1)]


def test_already_present_in_either_direction() -> None:
    for key in (pair_key(Q.prompt, TEXTS[1], TEXTS[0]), pair_key(Q.prompt, TEXTS[0], TEXTS[1])):
        assert reason(plan(scored(0.1, 0.9), known={key})) == "already_present"
        assert ids(plan(scored(0.1, 0.9, 0.6), known={key})) == [(2, 0)]


CANDIDATES = st.lists(
    st.tuples(
        st.sampled_from([*TEXTS, "The sun rises early there.", "Because of rain"]),
        st.one_of(st.none(), st.integers(-4, 4).map(lambda n: n / 4)),
        st.sampled_from(["stop", "length"]),
        st.sampled_from([None, None, None, "duplicate", "malformed"]),
    ),
    max_size=6,
)


@given(
    st.lists(CANDIDATES, max_size=4),
    st.integers(1, 3),
    st.one_of(st.none(), st.integers(1, 3)),
    st.booleans(),
)
def test_what_holds_of_every_plan(
    groups: list[Any], per_question: int, most: int | None, allow: bool
) -> None:
    questions = [Question(f"Question {i}?", "") for i in range(len(groups))]
    by_key = {
        question.key: [
            candidate(100 * i + n, text, None if skip else score, finish=finish, skip=skip)
            for n, (text, score, finish, skip) in enumerate(group)
        ]
        for i, (question, group) in enumerate(zip(questions, groups, strict=True))
    }
    rules = Rules(0.5, per_question, most, allow)
    found = plan_pairs(questions, by_key, rules)
    assert found == plan_pairs(questions, by_key, rules)
    used: set[int] = set()
    for pair in found.pairs:
        assert pair.margin >= 0.5
        assert allow or pair.chosen.finish_reason == "stop"
        assert similarity(pair.chosen.text, pair.rejected.text) < TOO_SIMILAR
        assert not {pair.chosen.id, pair.rejected.id} & used
        used |= {pair.chosen.id, pair.rejected.id}
        assert pair.chosen.skip is None is pair.rejected.skip
    margins = [pair.margin for pair in found.pairs]
    assert margins == sorted(margins, reverse=True)
    assert most is None or len(margins) <= most
    assert all(skip.reason in SKIP_REASONS for skip in found.skips)
    paired = {pair.question for pair in found.pairs}
    assert not paired & {skip.question for skip in found.skips}
    if not found.over_limit:
        assert paired | {skip.question for skip in found.skips} == set(questions)


def test_a_pair_without_scores_has_no_margin() -> None:
    with pytest.raises(ValueError, match="has no score"):
        _ = PlannedPair(Q, *scored(None, None)).margin
