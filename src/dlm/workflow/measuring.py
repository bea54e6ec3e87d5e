"""What a run is judged by: answers to the probes and held-out metrics, of where it started and of what it made.

The state a run starts from is gone once it has moved, so what was measured of it is kept with the run as events: a run
that goes on after a stop reads them back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

from dlm.curves import CurveRun, diagnose, select
from dlm.evaluation import ProbeAnswer, Question, answer_all
from dlm.stats import mean, paired_difference, share
from dlm.store import Run, Store, Version
from dlm.training import LoopResult, answer_held_out, score_held_out, score_monitors
from dlm.workflow.followers import Followers, StartMeasures
from dlm.workflow.loading import Loaded
from dlm.workflow.run_curves import verdict_data
from dlm.workflow.views import Accuracy, ProbePair, RewardChange, RunReport, TrainView

__all__ = ["Measuring", "accuracy_of", "reward_change"]

MOST_SFT_RISE = 0.1  # of the held-out supervised loss, beyond which a preference run is warned of
_HOLDS = {
    "preference": "fewer epochs, a lower preference.learning_rate, a higher preference.beta or preference.sft_weight "
    "above 0",
    "rft": "fewer steps, a lower rft.learning_rate or a higher rft.kl_beta",
}  # what keeps supervised rows from being forgotten, by phase
_TAIL = 0.1  # of the steps: what a report's smoothed loss is the mean of


class Measuring:
    """Measures a run before its first step and after its last one."""

    def __init__(self, store: Store, run: Run, loaded: Loaded, followers: Followers) -> None:
        self._store, self._run, self._loaded, self._followers = store, run, loaded, followers
        self._questions = [Question(one.row.prompt or "", one.row.text) for one in loaded.prepared.probes]
        self._is_sft = run.kind == "sft"
        self.start_answers: list[ProbeAnswer] = []
        self.answers: list[ProbeAnswer] = []
        self.before: dict[str, float] = {}
        self.after: dict[str, float] = {}
        self._rewards: list[Mapping[str, float | None]] = [{}, {}]  # by prompt, before and after

    def at_start(self, step: int) -> None:
        """Measure what the run starts from, or read what was measured of it. `step` is where the model stands.

        A supervised run starts a fresh adapter, so what it started from is the base, at any step.
        """
        prepared = self._loaded.prepared
        skipped = [
            {"place": one.row.place, "kind": one.kind, "reason": one.reason}
            for one in prepared.preflight.skipped
        ]
        if skipped:
            self._record_once("skipped_rows", {"rows": skipped})
        if prepared.findings:
            found = [{**asdict(one), "places": list(one.places)} for one in prepared.findings]
            self._record_once("findings", {"findings": found})
        stage = "base" if self._is_sft else "start"
        told, kept = self._recorded("probe_answers", stage), self._recorded("held_out", stage)
        if told is not None:
            self.start_answers = [ProbeAnswer(**answer) for answer in told["answers"]]
        if kept is not None:
            self.before = dict(kept["values"])
            self._rewards[0] = kept.get("rewards", {})
        measures = StartMeasures(
            answers=told is None and (self._is_sft or step == 0),
            held_out=kept is None and not self._is_sft and step == 0,
        )
        self._followers.measure(measures)
        if measures.answers:
            self.start_answers = self._answer(of_base=self._is_sft)
            self._record_answers(stage, self.start_answers)
        if measures.held_out:
            self.before, self._rewards[0] = self._score()
            self._record_held_out(stage, self.before, self._rewards[0])

    def at_end(self) -> dict[str, float]:
        """Measure what the run made; the metrics to log of it."""
        self.answers = self._answer(of_base=False)
        self._record_answers("version", self.answers)
        self.after, self._rewards[1] = self._score()
        if not self._is_sft:
            self._record_held_out("version", self.after, self._rewards[1])
        final = {name: value for name, value in self.after.items() if name.startswith("full_valid")}
        if self.answers:
            final["probe_exact_match"] = sum(answer.exact for answer in self.answers) / len(self.answers)
        return final

    def judge(self, curves: CurveRun) -> None:
        """Record the verdict of the rules, so that looking at many runs need not judge each of them anew."""
        self._record_once("diagnosis", verdict_data(diagnose(curves), select(curves)))

    def report(
        self,
        made: Version,
        *,
        promoted: bool,
        method: str,
        result: LoopResult,
        curves: CurveRun,
        view: TrainView,
    ) -> RunReport:
        """What the run leaves behind; a warning where supervised rows lost much."""
        self._warn_of_lost_facts(view)
        series = curves.series
        probes = zip(
            self.start_answers, self.answers, strict=False
        )  # none of the start, where it was not kept
        return RunReport(
            phase=made.phase,  # type: ignore[arg-type]
            method=method,
            run_id=self._run.id,
            version=made.name,
            parent=made.parent,
            promoted=promoted,
            steps=made.step,
            elapsed_s=result.progress.elapsed_s,
            last={name: float(one.values[-1]) for name, one in series.items()},
            smoothed_loss=series["train_loss"].tail_mean(_TAIL) if "train_loss" in series else math.nan,
            before=self.before,
            after=self.after,
            accuracy=accuracy_of(self.after),
            reward=reward_change(*self._rewards),
            probes=[ProbePair(before, after) for before, after in probes],
            skipped=len(self._loaded.prepared.preflight.skipped),
            curves=curves,
            diagnosis=diagnose(curves),
            selection=select(curves),
        )

    def _answer(self, *, of_base: bool) -> list[ProbeAnswer]:
        model = self._loaded.model
        with model.disable_adapter() if of_base else nullcontext():
            return answer_all(replace(self._loaded.policy, model=model), self._questions)

    def _score(self) -> tuple[dict[str, float], Mapping[str, float | None]]:
        """Held-out metrics; and rewards by prompt, of a run that has prompts."""
        prepared, model = self._loaded.prepared, self._loaded.model
        held_out = score_held_out(prepared, model)
        if self._is_sft:
            return held_out, {}
        answered = answer_held_out(prepared, model)
        return {**held_out, **score_monitors(prepared, model), **answered.values}, answered.rewards

    def _record_held_out(
        self, stage: str, values: Mapping[str, float], rewards: Mapping[str, float | None]
    ) -> None:
        data: dict[str, Any] = {"stage": stage, "values": dict(values)}
        self._record_once("held_out", data | ({"rewards": dict(rewards)} if rewards else {}))

    def _warn_of_lost_facts(self, view: TrainView) -> None:
        before, after = (values.get("sft_valid_loss") for values in (self.before, self.after))
        if before and after and after > (1 + MOST_SFT_RISE) * before:
            view.warn(
                f"the loss of held-out questions rose by {after / before - 1:.0%} ({before:.4f} → {after:.4f}): "
                f"facts may be lost; {_HOLDS[self._run.kind]} hold them"
            )

    def _record_answers(self, stage: str, answers: Sequence[ProbeAnswer]) -> None:
        """One event a stage, so that the newest of a stage is whole."""
        if answers:
            self._record_once(
                "probe_answers", {"stage": stage, "answers": [asdict(answer) for answer in answers]}
            )

    def _recorded(self, kind: str, stage: str) -> Mapping[str, Any] | None:
        found = [event.data for event in self._store.runs.events(self._run.id, kind)]
        return next((data for data in reversed(found) if data["stage"] == stage), None)

    def _record_once(self, kind: str, data: Mapping[str, Any]) -> None:
        """Record an event unless the run has it: a run that goes on says again what it said before it stopped."""
        if data not in [event.data for event in self._store.runs.events(self._run.id, kind)]:
            self._store.runs.event(self._run.id, kind, data)


def accuracy_of(values: Mapping[str, float]) -> Accuracy | None:
    """The share of all held-out pairs ranked right with its interval; None where no pair was held out."""
    if "full_valid_pairs" not in values:
        return None
    n, ties = round(values["full_valid_pairs"]), values["full_valid_pref_ties"]
    tied = round(ties * n)
    right = round(values["full_valid_pref_acc"] * n - tied / 2)
    return Accuracy(share([1.0] * right + [0.5] * tied + [0.0] * (n - right - tied)), ties)


def reward_change(
    before: Mapping[str, float | None], after: Mapping[str, float | None]
) -> RewardChange | None:
    """Mean rewards with their intervals, and that of the differences, over the prompts that were graded both times."""
    first, last = (
        {key: [reward] for key, reward in rewards.items() if reward is not None}
        for rewards in (before, after)
    )
    both = [key for key in first if key in last]
    if not both:
        return None
    return RewardChange(
        before=mean([first[key][0] for key in both]),
        after=mean([last[key][0] for key in both]),
        change=paired_difference(last, first),
    )
