"""Alarms of a reward that is earned in another way than it was meant, beside the rules that any curves are read by.

    dimension    a part of the grade falls while the whole rises: the grader lets one be traded for the other
    flag         answers with a grader's flag (such as surplus rows) become more while the reward rises
    cut_off      many answers end by the token budget, so what is rewarded is not what was meant to be said

They need what only a grader says. The gap to held-out prompts, answers that grow, and the grader's own errors are told by
`dlm.curves`. Each alarm is told once a run, and kept as an event of its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from dlm.curves import Series
from dlm.store import Run, Store
from dlm.training import Observer
from dlm.workflow.views import TrainView

__all__ = ["Alarm", "RewardHistory", "RewardObserver"]

RISE = 0.02  # of the mean reward, from which on it counts as risen
FALL = 0.05  # of a dimension's mean
FLAGGED = 0.10  # of the answers, more than at the start
CUT_OFF = 0.25  # of the answers
ALARM_EVERY = 10  # steps, in a run without held-out prompts
EDGE = 3  # steps at a run's start and end whose means are compared


@dataclass(frozen=True)
class Alarm:
    """What was seen, in words; `kind` as in the module's list, `metric` where it was seen."""

    kind: str
    metric: str
    message: str


class RewardHistory:
    """A run's metrics so far, by name and step. `masked`: answers that are cut off are not learnt from."""

    def __init__(self, series: Mapping[str, Series], *, masked: bool = False) -> None:
        self._masked = masked
        self._values: dict[str, list[tuple[int, float]]] = {
            name: list(zip(one.steps.tolist(), one.values.tolist(), strict=True))
            for name, one in series.items()
        }

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take a step's metrics."""
        for name, value in values.items():
            self._values.setdefault(name, []).append((step, value))

    def alarms(self) -> list[Alarm]:
        """Everything that is wrong now."""
        found = [self._cut_off()]
        if self._rise("train_mean_reward") >= RISE:
            for name in self._values:
                if name.endswith("/train_mean") or (
                    name.endswith("/train_reward_mean") and self._is_part(name)
                ):
                    found.append(self._dimension(name))
                elif name.startswith("flags/") and name.endswith("/train_share"):
                    found.append(self._flag(name))
        return [one for one in found if one is not None]

    def _is_part(self, name: str) -> bool:
        """Whether a grader is one of several: alone its mean is the reward itself."""
        return sum(other.endswith("/train_reward_mean") for other in self._values) > 1

    def _edges(self, name: str) -> tuple[float, float] | None:
        """Means of the first and the last steps; None before there are enough of both. Steps without a value count 0 for
        flags, which are logged only where there are any."""
        last = max((step for step, _ in self._values.get("train_mean_reward", [])), default=0)
        if last < 2 * EDGE:
            return None
        by_step = dict(self._values.get(name, []))
        sparse = name.startswith("flags/")
        edges = []
        for steps in (range(1, EDGE + 1), range(last - EDGE + 1, last + 1)):
            values = [by_step.get(step, 0.0) if sparse else by_step.get(step) for step in steps]
            known = [value for value in values if value is not None]
            if not known:
                return None
            edges.append(statistics.fmean(known))
        return edges[0], edges[1]

    def _rise(self, name: str) -> float:
        edges = self._edges(name)
        return 0.0 if edges is None else edges[1] - edges[0]

    def _dimension(self, name: str) -> Alarm | None:
        edges = self._edges(name)
        if edges is None or edges[0] - edges[1] < FALL:
            return None
        part = name.split("/")[-2]
        return Alarm(
            "dimension",
            name,
            f"the reward rises by {self._rise('train_mean_reward'):.3f} while {part} falls from {edges[0]:.3f} to "
            f"{edges[1]:.3f}: the grader lets one be traded for the other; give {part} more weight, or a cap",
        )

    def _flag(self, name: str) -> Alarm | None:
        edges = self._edges(name)
        if edges is None or edges[1] - edges[0] < FLAGGED:
            return None
        flag = name.split("/")[1]
        return Alarm(
            "flag",
            name,
            f"the reward rises while answers with the flag {flag} become more ({edges[0]:.0%} → {edges[1]:.0%}): "
            "see whether the grader should cost them",
        )

    def _cut_off(self) -> Alarm | None:
        counts = [value for _, value in self._values.get("train_truncated_count", [])]
        sizes = [value for _, value in self._values.get("train_answers", [])]
        if len(counts) < EDGE or not sum(sizes[-EDGE:]):
            return None
        share = sum(counts[-EDGE:]) / sum(sizes[-EDGE:])
        if share < CUT_OFF:
            return None
        return Alarm(
            "cut_off",
            "train_truncated_count",
            f"{share:.0%} of the answers are cut off by the token budget, and "
            + (
                "not learnt from (rft.mask_truncated): raise rft.max_new_tokens"
                if self._masked
                else "graded as they stand: raise rft.max_new_tokens, or leave them out with rft.mask_truncated=true"
            ),
        )


class RewardObserver:
    """An observer that also looks for alarms at every evaluation; each kind is told once, and kept with the run."""

    def __init__(self, inner: Observer, store: Store, run: Run, view: TrainView) -> None:
        self._inner, self._store, self._run, self._view = inner, store, run, view
        masked = bool(run.recipe["rft"]["mask_truncated"])
        self._history = RewardHistory(store.metrics.read(run.id), masked=masked)
        self._told = {
            (event.data["kind"], event.data["metric"]) for event in store.runs.events(run.id, "reward_alarm")
        }

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._inner.metrics(step, values)
        self._history.add(step, values)
        if "full_valid_mean_reward" not in values and step % ALARM_EVERY:
            return
        for alarm in self._history.alarms():
            if (alarm.kind, alarm.metric) not in self._told:
                self._told.add((alarm.kind, alarm.metric))
                self._store.runs.event(self._run.id, "reward_alarm", {"step": step, **asdict(alarm)})
                self._view.warn(alarm.message)

    def before_checkpoint(self) -> None:
        self._inner.before_checkpoint()

    def checkpoint_saved(self, step: int) -> None:
        self._inner.checkpoint_saved(step)

    def stop_requested(self) -> str:
        return self._inner.stop_requested()
