"""One mine run: sample, judge, pair, each step kept in the store before the next begins.

    questions ─► candidates ─► duplicates merged ─► scores ─► staged pairs

What is in the store is what is done: a run that was killed goes on by looking what is missing. A question's samples are
written together, each score by itself, all pairs at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from dlm.errors import InterruptedRunError, UsageError
from dlm.judging import Item, Judge, Verdict
from dlm.mining.candidates import duplicates, fitting, sample_candidates
from dlm.mining.length import LengthBias, length_bias
from dlm.mining.pairs import SKIP_REASONS, Plan, Rules, Skip, plan_pairs
from dlm.mining.questions import Question
from dlm.model import Policy, Settings
from dlm.store import Candidate, NewCandidate, NewPair, Run, StagedPair, Store, Tally

__all__ = ["FINISHED", "STARTED", "Job", "MineResult", "MineSettings", "MineView", "mine", "result_of"]

STARTED, SAMPLED, FINISHED = "mining_started", "mining_sampled", "mining_finished"
"""Kinds of events of a mine run."""


@dataclass(frozen=True)
class MineSettings:
    """How to sample, judge and pair. Two runs with equal settings on one version and document mine the same.

    Attributes:
        samples: answers to each question. Four: on the embedded base nearly four of them differ at temperature 1, and
            the best and the worst of more differ little more.
        temperature, top_p, max_new_tokens: of the sampler. Temperature 1 and top_p 1 draw from what the version itself
            thinks, so that pairs teach it about answers that it gives.
        seed: of the sampling.
        threshold: least difference of two scores; None is the judge's own.
        max_pairs, pairs_per_question, allow_truncated: see `pairs.Rules`.
    """

    samples: int = 4
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0
    threshold: float | None = None
    max_pairs: int | None = None
    pairs_per_question: int = 1
    allow_truncated: bool = False

    def __post_init__(self) -> None:
        faults = [
            (self.samples < 2, "samples", "2 or more, to have two answers to compare", self.samples),
            (self.max_pairs is not None and self.max_pairs < 1, "max_pairs", "1 or more", self.max_pairs),
            (self.pairs_per_question < 1, "pairs_per_question", "1 or more", self.pairs_per_question),
            (
                self.temperature == 0,
                "temperature",
                "above 0: greedy answers are all the same",
                self.temperature,
            ),
            (self.threshold is not None and self.threshold < 0, "threshold", "0 or more", self.threshold),
        ]
        for wrong, name, expected, found in faults:
            if wrong:
                raise UsageError(f"{name} is out of range", expected=expected, found=repr(found))
        _ = self.sampling

    @property
    def sampling(self) -> Settings:
        """The sampler's own settings."""
        return Settings(temperature=self.temperature, top_p=self.top_p, max_new_tokens=self.max_new_tokens)

    def to_json(self) -> dict[str, Any]:
        """Everything, for the run's record."""
        return asdict(self)


class MineView(Protocol):
    """Who shows a mine run to a person."""

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def sampled(self, questions: int, of: int) -> None: ...
    def judged(self, answers: int, of: int) -> None: ...


@dataclass(frozen=True)
class Job:
    """A mine run with all it needs.

    Attributes:
        make_judge: called once everything is sampled.
        known: `pair_key`s that the document holds, those that this very run wrote there aside.
        stop: why to stop, "" while nobody asked for it.
    """

    store: Store
    run: Run
    policy: Policy
    questions: Sequence[Question]
    settings: MineSettings
    make_judge: Callable[[], Judge]
    known: Collection[str]
    view: MineView
    stop: Callable[[], str]


@dataclass(frozen=True)
class MineResult:
    """What a mine run made. `skips` are the questions without a pair."""

    run_id: int
    judge: str
    scale: str
    threshold: float
    pairs: tuple[StagedPair, ...]
    skips: tuple[Mapping[str, str], ...]  # prompt, reason, detail
    skipped_prompts: Mapping[str, int]  # by reason; every reason is there
    over_limit: int
    tally: Tally
    length: LengthBias
    sampling_seconds: float


def mine(job: Job) -> MineResult:
    """Do what is missing of a run, and end it as complete.

    Raises:
        InterruptedRunError: a stop was asked for; the run goes on when it is started with the same settings.
        UsageError: every question is too long for the base.
    """
    questions = _askable(job)
    _sample(job, questions)
    _merge(job, questions)
    with closing(job.make_judge()) as judge:
        _judge(job, judge)
        threshold = judge.default_threshold if job.settings.threshold is None else job.settings.threshold
        _stage(job, questions, judge, threshold)
    job.store.runs.finish(job.run.id, "complete")
    return result_of(job.store, job.run.id)


def result_of(store: Store, run_id: int) -> MineResult:
    """What a complete mine run made, read from the store."""
    facts = store.runs.events(run_id, FINISHED)[-1].data
    sampled = store.runs.events(run_id, SAMPLED)
    return MineResult(
        run_id=run_id,
        judge=facts["judge"],
        scale=facts["scale"],
        threshold=facts["threshold"],
        pairs=store.mining.pairs(run_id),
        skips=tuple(facts["skipped"]),
        skipped_prompts=facts["skipped_prompts"],
        over_limit=facts["over_limit"],
        tally=store.mining.tally(run_id),
        length=LengthBias(**facts["length"]),
        sampling_seconds=sum(event.data["seconds"] for event in sampled),
    )


# --- the steps ---------------------------------------------------------------------------------------------------


def _askable(job: Job) -> list[Question]:
    fits, too_long = fitting(job.policy, job.questions)
    for question in too_long:
        job.view.warn(f"{question.place}: the question leaves no room for an answer and is left out")
    if not fits:
        raise UsageError("every question is too long for the base, so there is nothing to sample")
    return fits


def _sample(job: Job, questions: Sequence[Question]) -> None:
    there = Counter(candidate.question_key for candidate in job.store.mining.candidates(job.run.id))
    missing = [question for question in questions if there[question.key] < job.settings.samples]
    done, tokens, began = len(questions) - len(missing), 0, time.monotonic()
    if not missing:
        return

    def keep(question: Question, candidates: Sequence[NewCandidate]) -> None:
        nonlocal done, tokens
        job.store.mining.add_candidates(job.run.id, candidates)
        done += 1
        tokens += sum(candidate.n_tokens for candidate in candidates)
        job.view.sampled(done, len(questions))
        _stop_if_asked(job, f"{done} of {len(questions)} questions sampled")

    settings = job.settings
    try:
        sample_candidates(job.policy, missing, settings.sampling, settings.samples, settings.seed, keep)
    finally:
        if tokens:
            facts = {"tokens": tokens, "seconds": time.monotonic() - began}
            job.store.runs.event(job.run.id, SAMPLED, facts)


def _merge(job: Job, questions: Sequence[Question]) -> None:
    groups = _by_question(job.store.mining.candidates(job.run.id))
    stands_for: dict[int, int] = {}
    for question in questions:
        stands_for |= duplicates(groups.get(question.key, []))
    job.store.mining.skip_candidates(dict.fromkeys(stands_for, "duplicate"), stands_for)


def _judge(job: Job, judge: Judge) -> None:
    """Score what has not been asked about yet: judges ask a second time by themselves."""
    waiting = job.store.mining.unjudged(job.run.id)
    items = [Item(candidate.prompt, candidate.text) for candidate in waiting]
    for number, (candidate, verdict) in enumerate(zip(waiting, judge.score(items), strict=True), start=1):
        _record(job.store, candidate, verdict)
        job.view.judged(number, len(waiting))
        if number < len(waiting):
            _stop_if_asked(job, f"{number} of {len(waiting)} answers judged")


def _record(store: Store, candidate: Candidate, verdict: Verdict) -> None:
    """One verdict with its failed attempts, all or none."""
    retried = verdict.failures if verdict.score is not None else verdict.failures[:-1]
    with store.mining.exclusively():
        for failure in retried:
            store.mining.record_judgement(candidate.id, error=failure)
        store.mining.record_judgement(
            candidate.id,
            score=verdict.score,
            reasoning=verdict.reasoning,
            error=verdict.error,
            seconds=verdict.seconds,
        )


def _stage(job: Job, questions: Sequence[Question], judge: Judge, threshold: float) -> None:
    store, run_id, settings = job.store, job.run.id, job.settings
    rules = Rules(threshold, settings.pairs_per_question, settings.max_pairs, settings.allow_truncated)
    groups = _by_question(store.mining.candidates(run_id))
    with store.mining.exclusively():
        plan = plan_pairs(questions, groups, rules, {*job.known, *_mined_before(store, run_id)})
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        pairs = store.mining.stage(
            run_id,
            [
                NewPair(
                    question_key=pair.question.key,
                    prompt=pair.question.prompt,
                    chosen=pair.chosen.text,
                    rejected=pair.rejected.text,
                    chosen_candidate=pair.chosen.id,
                    rejected_candidate=pair.rejected.id,
                    chosen_score=pair.chosen.score or 0.0,
                    rejected_score=pair.rejected.score or 0.0,
                    judge_name=judge.name,
                    mined_at=now,
                )
                for pair in plan.pairs
            ],
        )
    _warn_of_failures(job, [candidate for group in groups.values() for candidate in group])
    bias = _bias(plan, groups)
    if bias.warning:
        job.view.warn(bias.warning)
    if not store.runs.events(run_id, FINISHED):  # else killed right after it
        facts = _facts(store.mining.tally(run_id), plan, bias, len(questions), len(pairs))
        facts |= {"judge": judge.name, "scale": judge.scale, "threshold": threshold}
        store.runs.event(run_id, FINISHED, {**facts, "samples": settings.samples})


def _warn_of_failures(job: Job, candidates: Sequence[Candidate]) -> None:
    """Say how many answers got no score, and why the first of them got none."""
    asked = [candidate for candidate in candidates if candidate.attempts]
    errors = [candidate.judge_error for candidate in asked if candidate.score is None]
    if errors:
        job.view.warn(
            f"the judge gave no score to {len(errors)} of {len(asked)} answers; the first: {errors[0]}"
        )


def _bias(plan: Plan, groups: Mapping[str, Sequence[Candidate]]) -> LengthBias:
    scored = [
        [(candidate.text, candidate.score) for candidate in group if candidate.score is not None]
        for group in groups.values()
    ]
    return length_bias([(pair.chosen.text, pair.rejected.text) for pair in plan.pairs], scored)


def _facts(tally: Tally, plan: Plan, bias: LengthBias, prompts: int, pairs: int) -> dict[str, Any]:
    """What the run did, as its last event tells it."""
    return {
        "prompts": prompts,
        "candidates": tally.candidates,
        "tokens": tally.tokens,
        "judged": tally.judged,
        "judge_failed": tally.judge_failed,
        "judge_calls": tally.judge_calls,
        "judge_seconds": tally.judge_seconds,
        "pairs": pairs,
        "over_limit": plan.over_limit,
        "skipped_prompts": {reason: _count(plan.skips, reason) for reason in SKIP_REASONS},
        "skipped_candidates": dict(tally.skipped_candidates),
        "skipped": [
            {"prompt": skip.question.prompt, "reason": skip.reason, "detail": skip.detail}
            for skip in plan.skips
        ],
        "length": asdict(bias),
    }


def _count(skips: Sequence[Skip], reason: str) -> int:
    return sum(skip.reason == reason for skip in skips)


def _mined_before(store: Store, run_id: int) -> set[str]:
    """The keys of every pair that another run staged, whatever became of it."""
    others = (pair for pair in store.mining.pairs() if pair.run_id != run_id)
    return {key for pair in others for key in (pair.mined_key, pair.content_key)}


def _by_question(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.question_key, []).append(candidate)
    return groups


def _stop_if_asked(job: Job, so_far: str) -> None:
    reason = job.stop()
    if reason:
        raise InterruptedRunError(
            f"mine run {job.run.id} stopped by {reason}: {so_far}, and kept",
            next_step="type the same command again: it goes on from there",
        )
