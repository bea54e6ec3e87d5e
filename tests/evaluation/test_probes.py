"""Probes: greedy answers in order, compared with the reference as text."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import dlm.model as model_room
from bases_on_the_spot import make_base, spec_of
from dlm.errors import ContextLengthError
from dlm.evaluation import Question, answer_all
from dlm.model import Policy, Sample, Settings, load_policy, sample

pytestmark = pytest.mark.torch

ASKED = [Question(f"What is number {i}?" + " Say it." * (i % 3), f"It is {i}.") for i in range(5)]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = make_base(tmp_path_factory.mktemp("probes") / request.param, request.param)
    return load_policy(spec_of(folder), device="cpu")


def test_no_questions_no_answers(policy: Policy) -> None:
    assert answer_all(policy, []) == []


def test_answers_are_greedy_in_order_and_as_if_asked_alone(policy: Policy) -> None:
    together = answer_all(policy, ASKED, max_new_tokens=12)
    assert [(a.prompt, a.reference) for a in together] == [(q.prompt, q.reference) for q in ASKED]
    assert together == answer_all(policy, ASKED, max_new_tokens=12)
    assert together == [answer_all(policy, [one], max_new_tokens=12)[0] for one in ASKED]
    for question, told in zip(ASKED, together, strict=True):
        (greedy,) = sample(
            policy,
            [policy.chat.prompt_ids(question.prompt)],
            Settings(temperature=0.0, max_new_tokens=12),
            [9],
        )
        assert (told.answer, told.finish_reason) == (greedy.text, greedy.finish_reason)


def test_exact_compares_with_the_reference_outer_white_space_aside(policy: Policy) -> None:
    (told,) = answer_all(policy, [Question("Hi?", "no such answer")], max_new_tokens=8)
    assert not told.exact
    said = told.answer.strip()
    assert said
    references = {
        said: True,
        f"\n {said}\t": True,
        said + "!": False,
        said[:-1]: False,
        said.swapcase() + "x": False,
    }
    asked = [Question("Hi?", reference) for reference in references]
    assert [one.exact for one in answer_all(policy, asked, max_new_tokens=8)] == list(references.values())


def test_equal_questions_with_different_references_are_judged_apart(policy: Policy) -> None:
    (told,) = answer_all(policy, [Question("Hi?", "x")], max_new_tokens=8)
    both = answer_all(policy, [Question("Hi?", "x"), Question("Hi?", told.answer)], max_new_tokens=8)
    assert [one.exact for one in both] == [False, True]


def test_the_finish_reason_says_whether_the_answer_was_cut(policy: Policy) -> None:
    (cut,) = answer_all(policy, [ASKED[0]], max_new_tokens=1)
    (again,) = sample(
        policy, [policy.chat.prompt_ids(ASKED[0].prompt)], Settings(temperature=0.0, max_new_tokens=1), [0]
    )
    assert cut.finish_reason == again.finish_reason


@pytest.mark.parametrize(("reference", "expected"), [("Short.", 256), ("a long answer " * 80, None)])
def test_an_answer_may_be_as_long_as_the_longest_reference_and_more(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, reference: str, expected: int | None
) -> None:
    asked: list[int] = []

    def listening(policy: Policy, prompts: Any, settings: Settings, seeds: Any) -> list[Sample]:
        asked.append(settings.max_new_tokens)
        assert settings.temperature == 0
        return sample(policy, prompts, Settings(temperature=0.0, max_new_tokens=2), seeds)

    monkeypatch.setattr(model_room, "sample", listening)
    answer_all(policy, [Question("Hi?", "x"), Question("Ho?", reference)])
    assert asked == [expected or len(policy.chat.completion_ids(reference)) + 32]


def test_a_question_longer_than_the_context_is_an_error_that_says_so(policy: Policy) -> None:
    with pytest.raises(ContextLengthError, match="too long"):
        answer_all(policy, [Question("word " * 300, "x")])


def test_a_model_in_training_is_asked_without_dropout_and_goes_on_training(policy: Policy) -> None:
    quiet = answer_all(policy, ASKED, max_new_tokens=6)
    policy.model.train()
    try:
        torch.manual_seed(1)
        assert answer_all(policy, ASKED, max_new_tokens=6) == quiet
        assert policy.model.training
    finally:
        policy.model.eval()
