"""Training in several processes: the main one leads, the others do its model's share of each step and nothing else.

Only the main process reads the store, writes it, and speaks. Before each phase it tells the others what to load; from
there on all of them make the same calls into training, where gradients and metrics are summed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from dlm.document import load
from dlm.errors import InterruptedRunError
from dlm.evaluation import Question, answer_all
from dlm.recipe import ResolvedRecipe
from dlm.store import Run, Version
from dlm.training import (
    World,
    checkpoints,
    estimate,
    is_sharded,
    make_optimizer,
    require_finite,
    score_held_out,
    score_monitors,
    train_phase,
)
from dlm.workflow.interrupt import StopRequest, stop_on_signals
from dlm.workflow.loading import Loaded, load_phase
from dlm.workflow.material import Files, base_of, read_material
from dlm.workflow.views import Phase, TrainView

__all__ = ["Followers", "StartMeasures", "Ticket", "follow"]


@dataclass(frozen=True)
class Ticket:
    """What the main process is about to load; `resumed` is the run that goes on, if any."""

    phase: Phase
    resolved: ResolvedRecipe
    start: Version | None
    files: Files
    reverted: Collection[str]  # keys of pairs that are not to be trained on
    precision: str | None
    references: Path
    resumed: Run | None
    then: Sequence[ResolvedRecipe]  # of the phases to follow: all processes refuse alike what they cannot use


@dataclass(frozen=True)
class StartMeasures:
    """What the main process measures of the state the run starts from."""

    answers: bool
    held_out: bool


class Followers:
    """The other processes, as the main one leads them; alone, all of it does nothing."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting = True  # for a ticket

    @property
    def count(self) -> int:
        """How many there are."""
        return self._world.size - 1

    def load(self, ticket: Ticket) -> None:
        """Make them load a phase."""
        self._world.from_main(ticket)
        self._waiting = False

    def begin(self, checkpoint_folder: Path) -> None:
        """Tell them where the run's checkpoints are."""
        self._world.from_main(checkpoint_folder)

    def keep(self, step: int) -> None:
        """Tell them of which step the version is made."""
        self._world.from_main(step)

    def measure(self, measures: StartMeasures) -> None:
        """Make them measure along."""
        self._world.from_main(measures)

    def phase_is_over(self) -> None:
        """They wait for the next ticket now."""
        self._waiting = True

    def dismiss(self) -> None:
        """There is no further phase. In the middle of one they cannot hear it: then they end with the main process."""
        if self._waiting:
            self._world.from_main(None)


def follow(path: Path, device: str, world: World, view: TrainView) -> None:
    """Be one of the other processes until the main one has no further phase.

    Raises:
        DlmError: what keeps this process from its part.
        InterruptedRunError: a stop was asked for.
    """
    document = load(path)
    spec = base_of(document, path)
    with stop_on_signals(view.stopping) as stop:
        ticket: Ticket | None
        while (ticket := world.from_main(None)) is not None:
            loaded = load_phase(
                ticket.phase,
                ticket.resolved,
                ticket.start,
                read_material(document, path, spec, ticket.files, view, reverted=ticket.reverted),
                device=device,
                precision=ticket.precision,
                references=ticket.references,
                view=view,
                resumed=ticket.resumed,
                then=ticket.then,
            )
            _take_part(ticket, loaded, world, stop, view)


def _take_part(ticket: Ticket, loaded: Loaded, world: World, stop: StopRequest, view: TrainView) -> None:
    """The same calls as `PhaseRun` makes, in the same order."""
    model, prepared, recipe = loaded.model, loaded.prepared, ticket.resolved.recipe
    estimate(prepared, model)
    folder: Path = world.from_main(Path())
    optimizer = make_optimizer(model, recipe)
    progress = checkpoints.load_newest(folder, model, optimizer, view.warn)
    measures = world.from_main(StartMeasures(False, False))
    if measures.answers:
        _answer_along(loaded, of_base=ticket.phase == "sft")
    if measures.held_out:
        _score_along(loaded)
    result = train_phase(prepared, model, recipe, optimizer, progress, _Silent(stop), folder)
    if result.interrupted:
        raise InterruptedRunError(f"stopped by {result.stopped}")
    step = world.from_main(result.progress.step)
    if step != result.progress.step:
        checkpoints.load_adapter_of(folder, step, model)
    require_finite(model, step)
    _answer_along(loaded, of_base=False)
    score_held_out(prepared, model)
    if ticket.phase != "sft":
        score_monitors(prepared, model)


def _answer_along(loaded: Loaded, *, of_base: bool) -> None:
    """A base that is spread over the processes answers only when all of them ask."""
    if not is_sharded(loaded.model):
        return
    questions = [Question(one.row.prompt or "", one.row.text) for one in loaded.prepared.probes]
    with loaded.model.disable_adapter() if of_base else nullcontext():
        answer_all(replace(loaded.policy, model=loaded.model), questions)


def _score_along(loaded: Loaded) -> None:
    score_held_out(loaded.prepared, loaded.model)
    score_monitors(loaded.prepared, loaded.model)


class _Silent:
    """An observer that nobody tells anything; it can ask for a stop."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...
    def before_checkpoint(self) -> None: ...
    def checkpoint_saved(self, step: int) -> None: ...

    def stop_requested(self) -> str:
        return self._stop.reason
