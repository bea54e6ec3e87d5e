"""Candidates: several answers of one version to each question, sampled together and each by a seed of its own.

All open questions go through the sampler at once. A question's answers are handed over as soon as they are all there, so
that they can be kept before the next ones come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dlm.mining.questions import Question, seed_of
from dlm.mining.similarity import same_as_earlier
from dlm.model import Policy, Sample, Settings, sample
from dlm.store import Candidate, NewCandidate

__all__ = ["duplicates", "fitting", "sample_candidates"]

QUESTIONS_AT_ONCE = 64  # with four samples each, as many rows as one batch of the sampler has at most


def fitting(policy: Policy, questions: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """The questions that leave room for an answer, and those that are too long for the base."""
    fits: list[Question] = []
    too_long: list[Question] = []
    for question in questions:
        room = policy.context_length - len(policy.chat.prompt_ids(question.prompt))
        (fits if room >= 1 else too_long).append(question)
    return fits, too_long


def sample_candidates(
    policy: Policy,
    questions: Sequence[Question],
    settings: Settings,
    samples: int,
    seed: int,
    on_question: Callable[[Question, Sequence[NewCandidate]], None],
) -> None:
    """Sample `samples` answers to every question; `on_question` gets each question's as soon as they are complete.

    What `on_question` raises ends the sampling; what was handed over before stays so.
    """
    for start in range(0, len(questions), QUESTIONS_AT_ONCE):
        _sample_some(
            policy, questions[start : start + QUESTIONS_AT_ONCE], settings, samples, seed, on_question
        )


def _sample_some(
    policy: Policy,
    questions: Sequence[Question],
    settings: Settings,
    samples: int,
    seed: int,
    on_question: Callable[[Question, Sequence[NewCandidate]], None],
) -> None:
    prompts = [policy.chat.prompt_ids(question.prompt) for question in questions]
    done: dict[int, dict[int, Sample]] = {}

    def keep(row: int, answer: Sample) -> None:
        place, number = divmod(row, samples)
        answers = done.setdefault(place, {})
        answers[number] = answer
        if len(answers) == samples:
            question = questions[place]
            on_question(
                question, [_candidate(question, number, answers[number], seed) for number in range(samples)]
            )

    sample(
        policy,
        [prompt for prompt in prompts for _ in range(samples)],
        settings,
        [seed_of(question, number, seed) for question in questions for number in range(samples)],
        on_finish=keep,
    )


def _candidate(question: Question, number: int, answer: Sample, seed: int) -> NewCandidate:
    return NewCandidate(
        question_key=question.key,
        prompt=question.prompt,
        sample=number,
        seed=seed_of(question, number, seed),
        text=answer.text,
        n_tokens=len(answer.ids),
        finish_reason=answer.finish_reason,
    )


def duplicates(candidates: Sequence[Candidate]) -> dict[int, int]:
    """Of one question's candidates those that another one stands for, by numbers.

    The first stays, a whole answer before one that was cut off.
    """
    ordered = sorted(
        (candidate for candidate in candidates if candidate.skip in (None, "duplicate")),
        key=lambda candidate: (candidate.finish_reason != "stop", candidate.sample),
    )
    earlier = same_as_earlier([candidate.text for candidate in ordered])
    return {
        candidate.id: ordered[place].id
        for candidate, place in zip(ordered, earlier, strict=True)
        if place is not None
    }
