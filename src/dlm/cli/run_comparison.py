"""Two runs next to each other, read from the store alone: in what they differ, and what was measured of each.

For `dlm show --compare`: whether mined pairs help is seen by training with and without them (`--no-mined`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlm.cli.briefing import words_of
from dlm.cli.output import Output
from dlm.cli.training_report import LAST_TENTH
from dlm.errors import UsageError

if TYPE_CHECKING:
    from dlm.store import Run, Store

__all__ = ["compare_runs", "print_comparison"]

NONE = "–"
_HOLD_OUT = ("include_mined", "min_margin", "val_fraction")  # knobs that decide which pairs are held out
_TRAINING = ("sft", "preference", "reward", "rft")
_TOLD = {  # measures of what is held out that are worth a line, by the names people know
    "full_valid_pref_acc": "ranked right",
    "full_valid_pairs": "  of held-out pairs",
    "full_valid_rewards/margins": "  margin",
    "full_valid_loss": "validation loss",
    "full_valid_mean_reward": "held-out reward",
    "valid_answers": "  of held-out prompts",
    "valid_completion_tokens_mean": "  tokens of an answer",
    "sft_valid_loss": "held-out questions' loss",
    "probe_loss": "probe loss",
}


def compare_runs(store: Store, names: Sequence[str]) -> dict[str, Any]:
    """Two training runs, each named by its number or by a version's name.

    Raises:
        MissingRecordError: no such run or version.
        UsageError: a name that is neither, twice the same run, or a run that trained nothing.
    """
    runs = [_find(store, name) for name in names]
    if runs[0].id == runs[1].id:
        raise UsageError(f"run {runs[0].id} cannot be compared with itself", expected="two runs")
    for run in runs:
        if run.kind not in _TRAINING:
            raise UsageError(f"run {run.id} is a {run.kind} run", expected="two runs that trained")
    knobs = [dict(_flat(run.recipe)) for run in runs]
    left_out = [_left_out(store, run.id) for run in runs]
    before, after = ([_held_out(store, run.id, stage) for run in runs] for stage in ("start", "version"))
    answers = [_answers(store, run.id) for run in runs]
    return {
        "runs": [_run_data(store, run) for run in runs],
        "same_start": runs[0].parent_version == runs[1].parent_version,
        "same_document": runs[0].document_sha256 == runs[1].document_sha256,
        # two phases hash different things
        "same_data": runs[0].data_hash == runs[1].data_hash if runs[0].kind == runs[1].kind else None,
        "same_base": runs[0].base_fingerprint == runs[1].base_fingerprint,
        "knobs": [
            {"name": name, "values": [one.get(name) for one in knobs]}
            for name in sorted(knobs[0].keys() | knobs[1].keys())
            if knobs[0].get(name) != knobs[1].get(name)
        ],
        "left_out": [
            {"reason": reason, "counts": [one[reason] for one in left_out]}
            for reason in sorted(left_out[0].keys() | left_out[1].keys())
        ],
        "measures": [
            {
                "name": name,
                "before": [one.get(name) for one in before],
                "after": [one.get(name) for one in after],
            }
            for name in sorted(after[0].keys() | after[1].keys())
        ],
        "probes": [
            {"prompt": prompt, "answers": [one.get(prompt) for one in answers]}
            for prompt in dict.fromkeys([*answers[0], *answers[1]])
        ],
    }


def print_comparison(output: Output, data: Mapping[str, Any]) -> None:
    """The comparison for people: what differs, what was measured, and the probes that are answered differently."""
    runs = data["runs"]
    titles = [f"run {run['id']}" for run in runs]
    output.heading(" and ".join(titles))
    rows = [
        ("made", *(run["version"] or run["status"] for run in runs)),
        ("from", *(run["parent_version"] or "base" for run in runs)),
        ("phase", *(f"{run['kind']} {run['method']}".strip() for run in runs)),
        ("steps", *(str(run["steps"]) for run in runs)),
        ("training loss", *(_number(run["smoothed_loss"]) for run in runs)),
    ]
    rows += [(knob["name"], *map(_shown, knob["values"])) for knob in data["knobs"]]
    rows += [(f"left out: {one['reason']}", *map(str, one["counts"])) for one in data["left_out"]]
    measures = {one["name"]: one for one in data["measures"]}
    for name, told in _TOLD.items():
        if name in measures:
            one = measures[name]
            changes = (_change(*values) for values in zip(one["before"], one["after"], strict=True))
            rows.append((told, *changes))
    rows += _probe_rows(data["probes"])
    output.table(("", *titles), rows)
    for probe in data["probes"]:
        said = [answer["answer"] if answer else NONE for answer in probe["answers"]]
        if said[0] != said[1]:
            output.line()
            output.pairs({"probe": probe["prompt"], **dict(zip(titles, said, strict=True))})
    for remark in _remarks(data, "full_valid_pairs" in measures):
        output.note(remark)


def _find(store: Store, name: str) -> Run:
    if name.isascii() and name.isdigit() and len(name) < 16:
        return store.runs.get(int(name))
    if name.startswith("v"):
        return store.runs.get(store.versions.get(name).run_id)
    raise UsageError(
        f"{name!r} is neither a run nor a version",
        expected="a run's number such as 3, or a version such as v0002",
    )


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _left_out(store: Store, run_id: int) -> Counter[str]:
    """How many rows or pairs were left out for which kind of reason; of an older run, for which reason."""
    events = store.runs.events(run_id, "skipped_rows")
    rows = events[-1].data["rows"] if events else ()
    return Counter(words_of(row["kind"]) if "kind" in row else row["reason"] for row in rows)


def _held_out(store: Store, run_id: int, stage: str) -> dict[str, float]:
    """What was measured of where a run started, or of the version it made."""
    events = [event.data for event in store.runs.events(run_id, "held_out") if event.data["stage"] == stage]
    if events or stage == "start":
        return dict(events[-1]["values"]) if events else {}
    # a supervised run keeps them as metrics
    series = store.metrics.read(run_id, [name for name in store.metrics.names(run_id) if name in _TOLD])
    return {name: float(one.values[-1]) for name, one in series.items() if len(one)}


def _answers(store: Store, run_id: int) -> dict[str, dict[str, Any]]:
    """The version's answers to the probes, by question."""
    told = [e.data for e in store.runs.events(run_id, "probe_answers") if e.data["stage"] == "version"]
    return (
        {one["prompt"]: {"answer": one["answer"], "exact": one["exact"]} for one in told[-1]["answers"]}
        if told
        else {}
    )


def _run_data(store: Store, run: Run) -> dict[str, Any]:
    losses = store.metrics.read(run.id, ["train_loss"]).get("train_loss")
    there = losses is not None and len(losses) > 0
    return {
        "id": run.id,
        "kind": run.kind,
        "method": run.method if run.method != run.kind else "",
        "status": run.status,
        "version": run.version,
        "parent_version": run.parent_version,
        "steps": int(losses.steps[-1]) if losses is not None and there else 0,
        "smoothed_loss": losses.tail_mean(LAST_TENTH) if losses is not None and there else None,
    }


def _probe_rows(probes: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    if not probes:
        return []
    both = [[probe["answers"][place] for probe in probes if probe["answers"][place]] for place in (0, 1)]
    exact = [f"{sum(one['exact'] for one in told)} of {len(told)}" for told in both]
    mean = [f"{sum(len(one['answer']) for one in told) / len(told):.0f}" if told else NONE for told in both]
    return [("probes answered exactly", *exact), ("  characters, mean", *mean)]


def _remarks(data: Mapping[str, Any], held_out_pairs: bool) -> list[str]:
    """What keeps the two from being like with like."""
    found = []
    runs = data["runs"]
    same_kind = runs[0]["kind"] == runs[1]["kind"]
    other_data = data["same_data"] is False
    if not data["same_start"] and same_kind:
        starts = " and ".join(str(run["parent_version"] or "the base") for run in runs)
        found.append(f"they start from {starts}: for like with like, dlm rollback before the second training")
    if not data["same_document"]:
        found.append("the document was changed between them")
    if other_data:
        found.append(
            "they were given other data: rows or pairs, of the document or of files, are not the same"
        )
    if not data["same_base"] and same_kind:
        found.append("they stand on another base: its weights or its tokenizer are not the same")
    if held_out_pairs and (other_data or any(knob["name"].endswith(_HOLD_OUT) for knob in data["knobs"])):
        found.append("each run holds out some of the pairs it may use, so these are not the same ones")
    return found


def _change(before: float | None, after: float | None) -> str:
    return _number(after) if before is None else f"{_number(before)} → {_number(after)}"


def _number(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:g}" if value == round(value) else f"{value:.4f}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NONE if value is None else str(value)
