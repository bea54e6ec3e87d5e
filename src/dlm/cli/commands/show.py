"""`dlm show`: what dlm knows about a document. Reads only, so it works while a training runs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.gate_report import verdict_data
from dlm.cli.mining_summary import mining_counts, mining_summary
from dlm.cli.options import document_argument
from dlm.cli.output import Output, duration, json_option, local_minute, plural, size, typed
from dlm.cli.project import find_project, open_store, runs_as_they_are, warn_of_copy
from dlm.cli.run_comparison import compare_runs, print_comparison

if TYPE_CHECKING:
    from dlm.store import Run, Store
    from dlm.workflow.project import Project

__all__ = ["show"]

SHOWN_RUNS = 12
SHOWN_VERDICTS = 4
NONE = "–"


@click.command()
@document_argument
@click.option(
    "--compare",
    nargs=2,
    metavar="A B",
    help="Two trainings side by side, each by its run's number or its version: knobs, losses, held-out pairs, probes.",
)
@json_option
def show(output: Output, document: Path, compare: tuple[str, str] | None) -> None:
    """What dlm knows about a document: its versions and where they come from, its runs, its size on disk."""
    from dlm.store import Home

    if compare:
        _compare(output, document, compare)
        return
    project = find_project(document)
    store = Home.open().find(project.dlm_id)
    data: dict[str, Any] = {"document": _document_data(project), **_NOTHING}
    if store is not None:
        with store:
            warn_of_copy(output, store, document)
            data |= _store_data(store, project)
    _print(output, document, data)
    output.finish(data)


def _compare(output: Output, document: Path, names: tuple[str, str]) -> None:
    with open_store(output, document) as store:
        project = find_project(document)
        comparison = compare_runs(store, names)
        data = {"document": _document_data(project), **_store_data(store, project)}
    print_comparison(output, comparison)
    output.finish({**data, "comparison": comparison})


_NOTHING: dict[str, Any] = {
    "store": None,
    "current": None,
    "holder": None,
    "changed_since_training": None,
    "versions": [],
    "promotions": [],
    "runs": [],
    "mining": None,
    "comparison": None,
}


def _document_data(project: Project) -> dict[str, Any]:
    """The document's own part; counts are null where problems keep it from being read."""
    data: dict[str, Any] = {
        "path": str(project.path),
        "dlm_id": project.dlm_id,
        "problems": project.n_problems,
    }
    document = project.document
    if document is None:
        return data | dict.fromkeys(("base", "sections", "questions", "probes", "pairs"))
    questions = [question for section in document.sections for question in section.questions]
    return data | {
        "base": document.header.base_model,
        "sections": len(document.sections),
        "questions": sum(not question.probe for question in questions),
        "probes": sum(question.probe for question in questions),
        "pairs": sum(len(section.triples) for section in document.sections),
    }


def _store_data(store: Store, project: Project) -> dict[str, Any]:
    runs = runs_as_they_are(store)
    current = store.versions.current_name()
    held = store.holder()
    trained = [run for run, status in runs if run.kind not in ("eval", "mine") and status == "complete"]
    changed = None
    if trained and project.document is not None:
        changed = trained[-1].document_sha256 != project.document.sha256
    return {
        "store": {"path": str(store.folder), **_sizes(store.folder)},
        "current": current,
        "holder": asdict(held) if held else None,
        "changed_since_training": changed,
        "versions": [
            {
                "name": version.name,
                "current": version.name == current,
                "parent": version.parent,
                "run_id": version.run_id,
                "phase": version.phase,
                "step": version.step,
                "base": version.base,
                "base_fingerprint": version.base_fingerprint,
                "data_hash": version.data_hash,
                "created_at": version.created_at,
                "removed_at": version.removed_at,
                "bytes": version.bytes,
                "path": str(version.folder),
                "verdicts": [verdict_data(one) for one in store.evaluations.verdicts(version.name)],
            }
            for version in store.versions.list(removed=True)
        ],
        "promotions": [asdict(promotion) for promotion in store.versions.promotions()],
        "runs": [_run_data(store, run, status) for run, status in runs],
        "mining": next(
            (mining_summary(store, run, status) for run, status in reversed(runs) if run.kind == "mine"), None
        ),
        "comparison": None,
    }


def _run_data(store: Store, run: Run, status: str) -> dict[str, Any]:
    series = store.metrics.read(
        run.id, ["train_loss", "val_pref_acc", "full_valid_mean_reward", "learning_rate", "eval/tokens"]
    )
    losses, ranked = series.get("train_loss"), series.get("val_pref_acc")
    earned = series.get("full_valid_mean_reward")
    rates = series.get("learning_rate", series.get("eval/tokens"))  # an evaluation counts its answers
    at_end = losses is not None and len(losses) > 0
    return {
        "id": run.id,
        "kind": run.kind,
        "method": run.method,
        "status": status,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "message": run.message,
        "version": run.version,
        "parent_version": run.parent_version,
        "steps": int(rates.steps[-1]) if rates is not None and len(rates) else 0,
        "planned_steps": run.planned_steps,
        "train_loss": float(losses.values[-1]) if losses is not None and at_end else None,
        "val_pref_acc": float(ranked.values[-1]) if ranked is not None and len(ranked) else None,
        "full_valid_mean_reward": float(earned.values[-1]) if earned is not None and len(earned) else None,
        "seed": run.seed,
        "threads": run.threads,
        "base": run.base,
        "base_fingerprint": run.base_fingerprint,
        "data_hash": run.data_hash,
        "document_sha256": run.document_sha256,
        "libraries": dict(run.libraries),
        "recipe": dict(run.recipe),
        "verdict": verdicts[-1].data if (verdicts := store.runs.events(run.id, "diagnosis")) else None,
    }


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes on disk, in all and by part. Files may come and go while a training runs."""
    parts = {"versions_bytes": 0, "checkpoints_bytes": 0, "references_bytes": 0, "other_bytes": 0}
    for path in folder.rglob("*"):
        try:
            n_bytes = path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
        part = f"{path.relative_to(folder).parts[0]}_bytes"
        parts[part if part in parts else "other_bytes"] += n_bytes
    return {"bytes": sum(parts.values()), **parts}


def _print(output: Output, path: Path, data: dict[str, Any]) -> None:
    output.heading(str(path))
    output.pairs(_overview(data, path))
    if data["versions"]:
        output.line()
        _print_versions(output, data["versions"])
    if data["runs"]:
        output.line()
        _print_runs(output, data["runs"])


def _overview(data: dict[str, Any], path: Path) -> dict[str, str]:
    about, store = data["document"], data["store"]
    items = {"id": about["dlm_id"]}
    if about["problems"]:
        items["content"] = f"{plural(about['problems'], 'problem')}: {typed('dlm', 'check', str(path))}"
    else:
        items["base"] = about["base"]
        items["content"] = ", ".join(
            plural(about[f"{noun}s"], noun) for noun in ("section", "question", "probe", "pair")
        )
    if data["changed_since_training"]:
        items["content"] += "; changed since the last training"
    if store is None:
        items["trained"] = f"not yet: {typed('dlm', 'train', str(path))}"
        return items
    items["current"] = data["current"] or "no version yet"
    items["store"] = (
        f"{store['path']}\n{size(store['bytes'])}: versions {size(store['versions_bytes'])}, "
        f"checkpoints {size(store['checkpoints_bytes'])}, cached log-probs {size(store['references_bytes'])}, "
        f"records {size(store['other_bytes'])}"
    )
    if data["holder"]:
        items["at work"] = f"process {data['holder']['pid']}: {data['holder']['command']}"
    mined = data["mining"]
    if mined is not None:
        pairs = mining_counts(mined["pairs"]) or "no pairs"
        items["mined last"] = f"run {mined['run_id']} from {mined['version']} with {mined['judge']}: {pairs}"
    judged = [run for run in data["runs"] if run["kind"] not in ("eval", "mine")][-1:]
    if judged and judged[0]["verdict"] is not None:
        run = judged[0]
        items["curves"] = f"run {run['id']}: {run['verdict']['text']}"
        if run["verdict"]["level"] in ("warn", "severe"):
            items["curves"] += f"\n{typed('dlm', 'diagnose', str(path), '--run-id', str(run['id']))} says why"
    if any(run["status"] in ("interrupted", "stopped") for run in data["runs"][-1:]):
        newest = data["runs"][-1]
        words = {"mine": ("preference", "mine", str(path)), "eval": ("eval", str(path))}
        again = words.get(newest["kind"], ("train", str(path), "--resume"))
        same = " with the same options" if newest["kind"] in words else ""
        items["next"] = f"{typed('dlm', *again)}{same} goes on with run {newest['id']}"
    return items


def _print_versions(output: Output, versions: list[dict[str, Any]]) -> None:
    rows = [
        [
            version["name"],
            "current" if version["current"] else "pruned" if version["removed_at"] else "",
            version["verdicts"][-1]["verdict"].upper() if version["verdicts"] else NONE,
            version["parent"] or NONE,
            version["phase"],
            str(version["run_id"]),
            str(version["step"]),
            version["base"],
            local_minute(version["created_at"]),
            size(version["bytes"]) if not version["removed_at"] else NONE,
        ]
        for version in versions
    ]
    columns = ["version", "state", "gate", "parent", "phase", "run", "step", "base", "made", "size"]
    if not any(version["verdicts"] for version in versions):
        columns.remove("gate")
        rows = [[*row[:2], *row[3:]] for row in rows]
    spare = ("phase", "base", "made", "parent", "step")
    output.table(columns, rows, right=("run", "step", "size"), spare=spare)
    output.pairs(
        {
            f"gate on {version['name']}": _verdict_in_words(version["verdicts"][-1])
            for version in [one for one in versions if one["verdicts"]][-SHOWN_VERDICTS:]
        }
    )


def _verdict_in_words(told: dict[str, Any]) -> str:
    """The newest verdict, and each condition that did not hold with its numbers."""
    lines = [
        f"{told['verdict'].upper()} against {told['baseline']}, {local_minute(told['at'])}: {told['reason']}"
    ]
    for one in told["conditions"]:
        if one["status"] != "PASS":
            numbers = [
                f"{name} {one[name]:.4f}" for name in ("value", "needed", "gold") if one[name] is not None
            ]
            lines.append(
                f"{one['status']}  {one['condition']}" + (f": {', '.join(numbers)}" if numbers else "")
            )
    return "\n".join(lines)


def _print_runs(output: Output, runs: list[dict[str, Any]]) -> None:
    shown = runs[-SHOWN_RUNS:]
    rows = [
        [
            str(run["id"]),
            run["kind"] if run["method"] in ("", run["kind"]) else f"{run['kind']} ({run['method']})",
            run["status"],
            local_minute(run["started_at"]),
            _took(run),
            f"{run['steps']}/{run['planned_steps']}",
            NONE if run["train_loss"] is None else f"{run['train_loss']:.4f}",
            NONE if run["val_pref_acc"] is None else f"{run['val_pref_acc']:.3f}",
            NONE if run["full_valid_mean_reward"] is None else f"{run['full_valid_mean_reward']:.3f}",
            run["version"] or NONE,
        ]
        for run in shown
    ]
    columns = [
        "run",
        "kind",
        "status",
        "started",
        "took",
        "steps",
        "loss",
        "ranked right",
        "reward",
        "version",
    ]
    spare = ["kind", "started", "took", "version"]
    for metric, column in (("val_pref_acc", "ranked right"), ("full_valid_mean_reward", "reward")):
        if all(run[metric] is None for run in shown):  # no run with pairs, or prompts, held out
            place = columns.index(column)
            rows = [[*row[:place], *row[place + 1 :]] for row in rows]
            columns.remove(column)
        else:
            spare.insert(3, column)
    output.table(columns, rows, right=("run", "took", "steps", "loss", "ranked right", "reward"), spare=spare)
    output.pairs({f"run {run['id']}": run["message"] for run in shown if run["message"]})
    if len(runs) > SHOWN_RUNS:
        output.line(f"and {plural(len(runs) - SHOWN_RUNS, 'earlier run')}: --json has them all")


def _took(run: dict[str, Any]) -> str:
    """How long a run took, or has taken so far."""
    if run["finished_at"] is None and run["status"] != "running":
        return NONE  # its process died; the next training finds out when
    ended = datetime.fromisoformat(run["finished_at"]) if run["finished_at"] else datetime.now(UTC)
    return duration((ended - datetime.fromisoformat(run["started_at"])).total_seconds())
