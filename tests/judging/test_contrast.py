"""The judge that bootstraps from the version: its formula by hand, its independence of the batch, and what it prefers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import pytest

from bases_on_the_spot import make_base, spec_of
from dlm.bases import resolve_base
from dlm.errors import UsageError
from dlm.judging import Anchor, Item, JudgeContext, make_judge
from dlm.judging.contrast import contrast
from dlm.model import Policy, completion_logprobs, load_policy
from dlm.tasks import style
from phase_runs import make_version

pytestmark = pytest.mark.torch
ANCHORS = (
    Anchor("How should release notes read?", "Short, and say what changed."),
    Anchor("What is the answer?", "The answer is here."),
    Anchor("What changed?", "Nothing."),
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    root = tmp_path_factory.mktemp("sway")
    base = make_base(root / "base", "llama")
    return load_policy(spec_of(base), make_version(base, root / "v0001"), device="cpu")


def logprob(policy: Policy, question: str, ids: Sequence[int]) -> float:
    return float(completion_logprobs(policy.model, [(policy.chat.prompt_ids(question), ids)])[0].sum())


def by_hand(policy: Policy, question: str, answer: str, others: list[str]) -> float:
    ids = policy.chat.completion_ids(answer)
    return value_of(policy, question, ids, others)


def value_of(policy: Policy, question: str, ids: Sequence[int], others: list[str]) -> float:
    foreign = fmean(logprob(policy, other, ids) for other in others)
    own = logprob(policy, question, ids)
    with policy.model.disable_adapter():
        base = logprob(policy, question, ids)
    assert abs(own - base) > 0.01  # the adapter does something
    return (own / 2 + base / 2 - foreign / 5) / len(ids)


def test_the_formula_by_hand() -> None:
    assert contrast(-6.0, -8.0, [-20.0, -28.0], 2) == pytest.approx((-7 + 24 / 5) / 2)
    assert contrast(-5.0, -5.0, [-5.0], 1) == pytest.approx(-4.0)  # as likely anywhere: a fifth is taken away


def test_a_score_is_the_contrast_against_the_anchors(policy: Policy) -> None:
    judge = make_judge("sway", JudgeContext(policy=policy, anchors=ANCHORS))
    questions = [anchor.prompt for anchor in ANCHORS]

    def value(question: str, answer: str) -> float:
        return by_hand(policy, question, answer, [other for other in questions if other != question])

    zero = fmean(value(anchor.prompt, anchor.answer) for anchor in ANCHORS)
    items = [
        Item("What changed?", "The question of the day."),
        Item("Another?", "日本語"),
        Item("What changed?", ""),
    ]
    found = [verdict.score for verdict in judge.score(items)]
    assert found == pytest.approx([value(one.prompt, one.candidate) - zero for one in items], abs=1e-5)
    assert fmean(
        verdict.score or 0.0 for verdict in judge.score([Item(one.prompt, one.answer) for one in ANCHORS])
    ) == pytest.approx(0.0, abs=1e-5)


def test_the_only_question_of_a_document_is_held_against_an_empty_one(policy: Policy) -> None:
    only = ANCHORS[0]
    judge = make_judge("sway", JudgeContext(policy=policy, anchors=(only,)))
    (verdict,) = judge.score([Item(only.prompt, "Long.")])
    zero = by_hand(policy, only.prompt, only.answer, [""])
    assert verdict.score == pytest.approx(by_hand(policy, only.prompt, "Long.", [""]) - zero, abs=1e-5)


def test_sampled_ids_count_rather_than_the_text_s_own(policy: Policy) -> None:
    judge = make_judge("sway", JudgeContext(policy=policy))
    whole = policy.chat.completion_ids("answer")
    letters = [id_ for letter in "answer" for id_ in policy.chat.completion_ids(letter)[:-1]]
    spelt = (*letters, policy.chat.end_id)
    assert len(spelt) > len(whole)
    items = [Item("What?", "answer"), Item("What?", "answer", tuple(whole)), Item("What?", "answer", spelt)]
    first, second, third = (verdict.score for verdict in judge.score(items))
    assert first == second
    assert third == pytest.approx(value_of(policy, "What?", spelt, [""]), abs=1e-5)


def test_scores_do_not_depend_on_the_batch_or_the_anchors_order(policy: Policy) -> None:
    many = (*ANCHORS, *(Anchor(f"Question {i}?", f"Answer {i}.") for i in range(5)))
    items = [Item(f"Question {i % 5}?", "answer " * (i % 7)) for i in range(20)]
    together = [v.score for v in make_judge("sway", JudgeContext(policy=policy, anchors=many)).score(items)]
    judge = make_judge("sway", JudgeContext(policy=policy, anchors=many[::-1]))
    alone = [next(judge.score([item])).score for item in items]
    assert together == pytest.approx(alone, abs=1e-5)


def test_what_cannot_be_read_costs_only_its_own_score(policy: Policy) -> None:
    judge = make_judge("sway", JudgeContext(policy=policy, anchors=ANCHORS))
    good = Item("What changed?", "All.")
    items = [
        good,
        Item("What changed?", "long " * 300),
        Item("What?", "\udfff"),
        Item("long " * 300, "x"),
        good,
    ]
    verdicts = list(judge.score(items))
    assert [verdict.failures for verdict in verdicts] == [(), *[("unscorable",)] * 3, ()]
    assert verdicts[0].score == pytest.approx(verdicts[4].score)
    assert math.isfinite(verdicts[0].score or math.nan)
    assert "longer than" in (verdicts[1].error or "")


def test_a_question_too_long_for_an_answer_stands_in_for_no_other(policy: Policy) -> None:
    long = Anchor("very " * 60 + "long?", "Yes.")
    item = Item("What changed?", "answer " * 25)
    prompt, ids = policy.chat.prompt_ids(long.prompt), policy.chat.completion_ids(item.candidate)
    assert len(prompt) + len(ids) > policy.context_length
    with_it = make_judge("sway", JudgeContext(policy=policy, anchors=(*ANCHORS, long)))
    without = make_judge("sway", JudgeContext(policy=policy, anchors=ANCHORS))
    zeros = [judge._zero for judge in (with_it, without)]  # type: ignore[attr-defined]
    scores = [next(judge.score([item])).score or 0.0 for judge in (with_it, without)]
    assert scores[0] + zeros[0] == pytest.approx(scores[1] + zeros[1], abs=1e-5)


def test_without_a_version_it_says_what_to_type() -> None:
    with pytest.raises(UsageError) as caught:
        make_judge("sway", JudgeContext())
    assert caught.value.next_step == "dlm train DOCUMENT"


@pytest.mark.big
def test_the_embedded_base_prefers_right_answers_to_likely_ones() -> None:
    policy = load_policy(resolve_base("pocket"), device="cpu")
    cases = [case for case in style.generate(77, 24) if case.kind == "advice"]
    anchors = tuple(Anchor(case.question, style.answer(case, "brief")) for case in cases[:6])
    judge = make_judge("sway", JudgeContext(policy=policy, anchors=anchors))
    asked = cases[6:]
    right = [Item(case.question, style.answer(case, "padded")) for case in asked]
    # brief advice on another topic: likely words, fewer of them, and wrong
    others = [next(other for other in cases if other.subject != case.subject) for case in asked]
    wrong = [
        Item(case.question, style.answer(other, "brief")) for case, other in zip(asked, others, strict=True)
    ]
    pairs = zip(judge.score(right), judge.score(wrong), strict=True)
    won = [(first.score or 0) > (second.score or 0) for first, second in pairs]
    assert fmean(won) >= 0.8
