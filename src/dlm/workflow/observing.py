"""Who watches a run's loop: metrics go to the store and the view, warnings of the curves to the view and the record."""

from __future__ import annotations

from collections.abc import Mapping

from dlm.store import MetricWriter, Store
from dlm.workflow.interrupt import StopRequest
from dlm.workflow.views import TrainView
from dlm.workflow.watching import WARNING, CurveWatch, warning_data, warning_text

__all__ = ["RunObserver"]


class RunObserver:
    """Passes on what the loop tells, and its stops: one asked for from outside, one that the curves are a reason for."""

    def __init__(
        self,
        store: Store,
        run_id: int,
        writer: MetricWriter,
        view: TrainView,
        total: int,
        stop: StopRequest,
        watch: CurveWatch,
    ) -> None:
        self._store, self._run_id, self._writer = store, run_id, writer
        self._view, self._total, self._stop, self._watch = view, total, stop, watch

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """The values of one step."""
        self._writer.log(step, dict(values))
        self._view.step(step, self._total, values)
        for finding in self._watch.add(step, values):
            self._view.warn(warning_text(step, finding))
            self._store.runs.event(self._run_id, WARNING, warning_data(step, finding))

    def before_checkpoint(self) -> None:
        """Return when everything logged so far is safe."""
        self._writer.flush()

    def checkpoint_saved(self, step: int) -> None:
        """A checkpoint is safe on disk."""
        self._store.remember_checkpoints(self._run_id, [step])
        self._view.checkpoint(step)

    def stop_requested(self) -> str:
        """Who asked for a stop, "" for nobody."""
        return self._stop.reason

    def enough(self) -> str:
        """Why the curves say that the run should end here, "" for no reason."""
        return self._watch.reason
