"""Rounds of reinforcement fine-tuning: the policy answers prompts, a grader rewards the answers, groups are compared.

Everything random is a function of (seed, step, prompt, sample), so a run that goes on from a checkpoint samples the answers
it would have sampled. An answer that the grader failed on has no reward: it is counted, and not learnt from.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from dlm.grading import UNRESPONSIVE, ErrorTally, Grade, GradeItem, Grader
from dlm.model import Policy, Sample, Settings, sample
from dlm.recipe import RftRecipe
from dlm.training.groups import Group, Numbers, cut_groups
from dlm.training.layout import Layout
from dlm.training.merging import merged
from dlm.training.planning import Plan, derived_seed
from dlm.training.policy_gradient import group_advantages, policy_gradient_denominator
from dlm.training.prompts import PromptExample
from dlm.training.reward_metrics import grader_metrics
from dlm.training.start import StartWeights

__all__ = ["Answered", "Rollouts", "Round", "Validation"]


@dataclass(frozen=True)
class Answered:
    """One answer with its grade."""

    example: PromptExample
    sample: Sample
    grade: Grade

    @property
    def truncated(self) -> bool:
        return self.sample.finish_reason == "length"


@dataclass(frozen=True)
class Round:
    """What a step learns from: groups with spread, cut to fit memory; what is told of all of them; their tokens."""

    rows: Sequence[Group]
    values: Mapping[str, float]
    tokens: int


@dataclass(frozen=True)
class Validation:
    """One answer to each held-out prompt: the metrics, and the reward by prompt (None: the grader failed)."""

    values: Mapping[str, float]
    rewards: Mapping[str, float | None]


class Rollouts:
    """Answers to prompts from the policy as it is, with their grades.

    Args:
        policy: the base, its tokenizer and renderer.
        grader: gives the rewards.
        start: the adapter that the run starts from, the reference of the KL term.

    `tally` counts the grader's errors on the answers of the whole run: who goes on with one puts its counts back.
    """

    def __init__(
        self,
        policy: Policy,
        grader: Grader,
        knobs: RftRecipe,
        layout: Layout,
        plan: Plan,
        seed: int,
        start: StartWeights,
        validation: Sequence[PromptExample],
        max_new_tokens: int,
    ) -> None:
        self.knobs, self.max_new_tokens = knobs, max_new_tokens
        self.validation = validation
        self._policy, self._grader, self._layout, self._plan = policy, grader, layout, plan
        self._seed, self._start = seed, start
        self.tally = ErrorTally(knobs.max_grader_error_share)

    def round(self, model: Any, prompts: Sequence[PromptExample], step: int, *, watched: bool) -> Round:
        """Sample, grade and compare the answers of one step.

        Args:
            watched: whether the divergence from the start is wanted although no loss needs it.

        Raises:
            GradingError: the grader failed on too many answers.
            NonFiniteError: the model's logits are not numbers.
        """
        began = time.perf_counter()
        answers, graded_at = self._answer(model, prompts, self.knobs.group_size, f"step {step}")
        sampled_s, graded_s = graded_at - began, time.perf_counter() - graded_at
        size = self.knobs.group_size
        by_prompt = [answers[at : at + size] for at in range(0, len(answers), size)]
        groups = self._groups(by_prompt)
        began = time.perf_counter()
        if self.knobs.kl_beta or watched:
            groups = self._with_reference(model, groups)
        values = {
            "sampling_s": sampled_s,
            "grading_s": graded_s,
            "reference_s": time.perf_counter() - began,
            "skipped_groups": float(len(by_prompt) - len(groups)),
            **self._told(answers, "train"),
        }
        spreads = [
            statistics.pstdev(rewards)
            for group in by_prompt
            if (rewards := [one.grade.score for one in group if one.grade.scored])
        ]
        if spreads:
            values["reward_std"] = statistics.fmean(spreads)
        tokens = sum(len(one.prompt) for one in prompts) + sum(len(one.sample.ids) for one in answers)
        return Round(cut_groups(groups, self._layout, self._plan.micro_positions), values, tokens)

    def validate(self, model: Any) -> Validation:
        """One answer to each held-out prompt, sampled as in training, with the same noise at every time: what changes from
        one evaluation to the next is the policy. Empty without held-out prompts.

        Raises:
            GradingError, NonFiniteError: as `round`.
        """
        if not self.validation:
            return Validation({}, {})
        answers, _ = self._answer(model, self.validation, 1, "validation")
        rewards = {one.example.row.key: one.grade.score if one.grade.scored else None for one in answers}
        return Validation(self._told(answers, "valid"), rewards)

    def _answer(
        self, model: Any, prompts: Sequence[PromptExample], size: int, purpose: str
    ) -> tuple[list[Answered], float]:
        """`size` answers to each prompt, in order, graded; and the time when grading began."""
        knobs = self.knobs
        asked = [one for one in prompts for _ in range(size)]
        seeds = [
            derived_seed(self._seed, f"{purpose}, prompt {one.row.key}, sample", place % size)
            for place, one in enumerate(asked)
        ]
        settings = Settings(
            temperature=knobs.temperature, top_p=knobs.top_p, max_new_tokens=self.max_new_tokens
        )
        policy = replace(self._policy, model=model)
        with merged(model):
            samples = sample(policy, [one.prompt for one in asked], settings, seeds)
        sampled_at = time.perf_counter()
        items = [
            one.row.item(answer.text, truncated=answer.finish_reason == "length")
            for one, answer in zip(asked, samples, strict=True)
        ]
        grades = self._graded(items)
        return [Answered(*parts) for parts in zip(asked, samples, grades, strict=True)], sampled_at

    def _graded(self, items: Sequence[GradeItem]) -> Sequence[Grade]:
        """Their grades, counted; no more of them than it takes to know that the grader fails too often."""
        if self.tally.seen + len(items) >= self.tally.at_least:
            return self.tally.all_of(self._grader, items)
        grades = self._grader.grade(items)
        self.tally.add(grades)
        return grades

    def _groups(self, by_prompt: Sequence[Sequence[Answered]]) -> list[Group]:
        """Groups whose rewards differ; of each, the answers that are learnt from."""
        knobs = self.knobs
        graded = [one for group in by_prompt for one in group if one.grade.scored]
        lengths = [len(one.sample.ids) for one in graded if not (knobs.mask_truncated and one.truncated)]
        if not lengths:
            return []
        whole = policy_gradient_denominator(lengths, knobs.loss_type, max_length=self.max_new_tokens)
        groups = []
        for answers in by_prompt:
            scored = [one for one in answers if one.grade.scored]
            rewards = torch.tensor([[one.grade.score for one in scored]])
            if len(scored) < 2 or bool((rewards == rewards[0, 0]).all()):
                continue
            advantages = group_advantages(rewards, scale_std=knobs.loss_type != "dr_grpo")[0].tolist()
            learnt = [
                (one, advantage)
                for one, advantage in zip(scored, advantages, strict=True)
                if not (knobs.mask_truncated and one.truncated)
            ]
            if learnt:
                groups.append(
                    Group(
                        row=answers[0].example.row,
                        prompt=answers[0].example.prompt,
                        branches=tuple(one.sample.ids for one, _ in learnt),
                        advantages=tuple(advantage for _, advantage in learnt),
                        logprobs=tuple(one.sample.logprobs for one, _ in learnt),
                        denominator=whole,
                    )
                )
        return groups

    def _with_reference(self, model: Any, groups: Sequence[Group]) -> list[Group]:
        """Groups with their tokens' log-probs under the start's weights, in the layout of the run."""
        result: list[Group] = []
        model.eval()
        with torch.no_grad(), self._start.in_place(model):
            for rows in self._plan.cut(groups, self._layout):
                scores = self._layout.scores(model, rows, temperature=self.knobs.temperature)
                pieces = iter(scores.logprobs.cpu().split(scores.lengths.tolist()))
                for row in rows:
                    known: Numbers = tuple(tuple(next(pieces).tolist()) for _ in row.branches)
                    result.append(replace(row, reference=known))
        return result

    def _told(self, answers: Sequence[Answered], part: str) -> dict[str, float]:
        """What is told of answers: `part` is train or valid."""
        grades = [one.grade for one in answers]
        n = len(answers)
        scored = [grade for grade in grades if grade.scored]
        whole = "train" if part == "train" else "full_valid"
        tokens = statistics.fmean(len(one.sample.ids) for one in answers)
        values = {
            ("completion_tokens_mean" if part == "train" else "valid_completion_tokens_mean"): tokens,
            ("mean_unresponsive_rewards" if part == "train" else "valid_mean_unresponsive_rewards"): (
                sum(UNRESPONSIVE in grade.flags for grade in grades) / n
            ),
            f"{part}_sample_parse_error_count": float(sum(grade.error == "sample_parse" for grade in grades)),
            f"{part}_other_error_count": float(n - len(scored)),
            f"{part}_answers": float(n),
            f"{part}_truncated_count": float(sum(one.truncated for one in answers)),
            f"{part}_pass_rate": sum(grade.passed for grade in grades) / n,
        }
        if scored:
            values[f"{whole}_mean_reward"] = statistics.fmean(grade.score for grade in scored)
        return values | grader_metrics(self._grader, grades, part)
