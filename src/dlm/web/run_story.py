"""What else there is to tell of a run: its checkpoints, the answers to its probes over time, its recipe and its parent's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dlm.store import Run, Store
from dlm.web.run_rows import RunRow

__all__ = ["Answer", "Knob", "Probe", "SavedState", "checkpoints_of", "probes_of", "recipe_of"]


@dataclass(frozen=True)
class SavedState:
    """A checkpoint of a run, or a version that was made of one. `is_there`: it can be promoted."""

    step: int
    saved_at: str
    is_there: bool
    version: str | None
    is_current: bool


@dataclass(frozen=True)
class Answer:
    """What somebody answered to a probe: `who` is the base, a version, or a step of the run; `vote` is this person's, 0 for
    none.
    """

    who: str
    text: str
    exact: bool
    version: str | None
    vote: int


@dataclass(frozen=True)
class Probe:
    """A question that is never trained on, the document's answer, and the answers over time."""

    prompt: str
    reference: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Knob:
    """One knob of a run, and of the run that made its parent version; None where that one, or this one, has no such knob."""

    name: str
    value: str | None
    parent: str | None
    differs: bool


def checkpoints_of(store: Store, row: RunRow) -> list[SavedState]:
    """The saved states of a run, by step."""
    current = store.versions.current_name()
    versions = {one.step: one for one in store.versions.list() if one.run_id == row.run.id}
    found = {
        one.step: SavedState(one.step, one.saved_at, one.is_there, None, False)
        for one in store.saved_checkpoints(row.run.id)
    }
    for step, version in versions.items():
        found[step] = SavedState(
            step, version.created_at, version.answers, version.name, version.name == current
        )
    return [found[step] for step in sorted(found)]


def probes_of(store: Store, run: Run) -> list[Probe]:
    """The probes of a run with every answer that was recorded, oldest first."""
    found: dict[str, tuple[str, list[Answer]]] = {}
    for event in store.runs.events(run.id, "probe_answers"):
        who = _who(event.data, run)
        version = who if who in ("base", run.version, run.parent_version) else None
        for told in event.data["answers"]:
            _, answers = found.setdefault(str(told["prompt"]), (str(told.get("reference", "")), []))
            text = str(told["answer"])
            asked = (str(told["prompt"]), text)
            vote = store.signals.votes([asked]).get(asked, 0)
            answers.append(Answer(who, text, bool(told.get("exact")), version, vote))
    return [Probe(prompt, reference, tuple(answers)) for prompt, (reference, answers) in found.items()]


def _who(data: Mapping[str, Any], run: Run) -> str:
    stage = str(data.get("stage", ""))
    if stage == "version":
        return run.version or "this run"
    if stage == "start":
        return run.parent_version or "before"
    return f"step {data['step']}" if "step" in data else stage


def recipe_of(store: Store, run: Run) -> tuple[int | None, list[Knob]]:
    """The knobs of a run beside those of the run that made its parent version; that run's number first."""
    parent = None
    if run.parent_version is not None:
        parent = store.runs.get(store.versions.get(run.parent_version).run_id)
    own = dict(_flat(_facts(run)))
    theirs = {} if parent is None else dict(_flat(_facts(parent)))
    knobs = [
        Knob(
            name,
            _shown(own[name]) if name in own else None,
            _shown(theirs[name]) if name in theirs else None,
            parent is not None and own.get(name) != theirs.get(name),
        )
        for name in {**own, **theirs}
    ]
    return (None if parent is None else parent.id), knobs


def _facts(run: Run) -> dict[str, Any]:
    """A run's recipe, with what else decides about its result."""
    return {
        **run.recipe,
        "base": run.base,
        "document_sha256": run.document_sha256[:12],
        "data": run.data_hash[:12],
        "threads": run.threads,
    }


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None or value == "" else str(value)
