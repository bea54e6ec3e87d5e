"""Run the study of PROTOCOL.md with the commands a user has, and write REPORT.md beside it.

    python study.py [--longer] [--work FOLDER] [--jobs N] [--again] [CELL …]

A cell is one arm and seed, such as rft-2: a home of its own, in which the base's answers stand already. Each cell that is
done leaves results/CELL.json, which a rerun keeps; a killed one goes on where it was (its training with --resume, its
evaluations by themselves). Without cells all of them run, then the report is written. `--jobs 2` runs two at a time, each on
one thread, as dlm chooses for a base this small. `--again` trains and asks nothing: it grades the answers that are kept
anew and asks the gates again, with the graders and the gate of today. `--longer` is the second comparison, on tables of 54
rows: longer.dlm, results-longer/, LONGER.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

from data import write_all
from lost import where_lost
from measures import PLANNED
from report import write_longer, write_report

from dlm.grading import GradeItem, make_grader, parse_grader
from dlm.grading.tables import facts_of
from dlm.tasks import spreadsheet

HERE = Path(__file__).parent
SEEDS = (1, 2, 3)
SPLITS = {"tables": "heldout", "stress": "stress_heldout", "stress-starving": "stress_heldout"}
GRADERS = ("spreadsheet:strict", "spreadsheet:published")
SAMPLINGS = {"greedy": 1, "sampled": 4}  # answers to each case

GENTLE = ("learning_rate=0.001", "num_epochs=2")  # a fifth of the base's own rate
SLOWER = ("learning_rate=0.0005", "num_epochs=2")


@dataclass(frozen=True)
class Training:
    """One `dlm train`: its phase, what it reads, its knobs and flags."""

    phase: str
    data: tuple[str, ...]  # flags with their files
    knobs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def arguments(self, seed: int, start: str) -> list[str]:
        files = [part if part.startswith("-") or ":" in part else f"data/{part}.jsonl" for part in self.data]
        knobs = [word for knob in (*self.knobs, "layout=packed_shared") for word in ("--set", knob)]
        flags = [*self.flags, "--keep-last", "20", "--seed", str(seed), "--start", start, "--no-gate"]
        return ["--phase", self.phase, *files, *knobs, *flags]


EARLY = ("early_stopping=3",)
STRESS = ("--rows", "stress")
BOTH = ("--rows", "tables", *STRESS)
RFT = ("--prompts", "prompts", "--grader")
ONE_PASS = ("rft.steps=27",)  # rounds of 8 of the 219 prompts that are not held out
THREE_PASSES = ("rft.steps=81", "rft.learning_rate=0.001")

ARMS: Mapping[str, tuple[Training, ...]] = {
    "rft": (Training("rft", (*RFT, "spreadsheet:strict"), ONE_PASS),),
    "sft-stress": (
        Training("sft", STRESS, ("learning_rate=0.001", "num_epochs=13", *EARLY), ("--keep-best",)),
    ),
    "dpo": (
        Training("preference", ("--pairs", "pairs"), ("preference.num_epochs=8", *EARLY), ("--keep-best",)),
    ),
    "sft-collapsed": (Training("sft", ("--rows", "collapsed"), ("learning_rate=0.02", "num_epochs=40")),),
    "sft-gentle": (Training("sft", ("--rows", "tables"), GENTLE),),
    "sft-half-stress": (Training("sft", BOTH, GENTLE),),
    "sft-curriculum": (Training("sft", STRESS, GENTLE), Training("sft", BOTH, SLOWER)),
    "rft-long": (Training("rft", (*RFT, "spreadsheet:strict"), THREE_PASSES),),
    "rft-published": (Training("rft", (*RFT, "spreadsheet:published"), ONE_PASS),),
    "sft-mixed": (Training("sft", BOTH, ("learning_rate=0.001", "num_epochs=13", *EARLY), ("--keep-best",)),),
}
# beside the version that counts: the end of a run whose best checkpoint counts, the peak of one whose end counts
ALSO: Mapping[str, str] = {
    "sft-stress": "last",
    "sft-mixed": "last",
    "dpo": "last",
    "rft": "peak",
    "rft-long": "peak",
    "rft-published": "peak",
}


def _cells() -> tuple[str, ...]:
    """Every cell, the comparison's own first; rft-long, which is none of the protocol's, last."""
    compared = [f"{arm}-{seed}" for seed in SEEDS for arm in ("rft", "sft-stress", "dpo")]
    planned = [f"{arm}-{seed}" for arm, seeds in PLANNED.items() for seed in SEEDS[:seeds]]
    rest = [cell for cell in planned if cell not in compared]
    return ("base", *compared, *rest, *(f"rft-long-{seed}" for seed in SEEDS))


@dataclass(frozen=True)
class Comparison:
    """A document whose long tables have one length, and where its cells are kept. `rows` None: the split's own, 40."""

    document: str
    results: Path
    cells: tuple[str, ...]
    rows: int | None = None

    def cases(self, suite: str) -> list[spreadsheet.SpreadsheetCase]:
        return spreadsheet.of_split(SPLITS[suite], rows=None if suite == "tables" else self.rows)


WHOLE = Comparison("sheets.dlm", HERE / "results", _cells())
AT_54_ROWS = Comparison(
    "longer.dlm",
    HERE / "results-longer",
    (
        "base",
        *(f"{arm}-{seed}" for arms in (("rft", "sft-stress"), ("dpo",)) for seed in SEEDS for arm in arms),
        *(f"sft-mixed-{seed}" for seed in SEEDS[:2]),  # none of the protocol's
    ),
    rows=54,
)


@dataclass
class Cell:
    """A home, and what was measured there so far; the document is the same for all of a comparison."""

    name: str
    work: Path
    study: Comparison

    @property
    def folder(self) -> Path:
        return self.work / self.name

    def dlm(self, command: str, *arguments: str, allowed: Sequence[int] = (0,)) -> dict[str, Any]:
        """Run `dlm COMMAND sheets.dlm … --json`: what it prints, its CPU seconds and its peak memory in MB.

        What it says on the way stands in the cell's log.
        """
        environment = {**os.environ, "DLM_HOME": str(self.folder / "home"), "HF_HUB_OFFLINE": "1"}
        words = [sys.executable, "-m", "dlm", command, self.study.document, *arguments, "--json"]
        with (self.folder / "log").open("a") as log, tempfile.TemporaryFile("w+") as said:
            log.write(f"$ dlm {' '.join(words[3:])}\n")
            log.flush()
            process = subprocess.Popen(words, cwd=self.work, env=environment, stdout=said, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
            code = process.returncode = os.waitstatus_to_exitcode(status)
            if code not in allowed:
                raise SystemExit(f"{self.name}: dlm {command} ended with {code}; see {self.folder / 'log'}")
            said.seek(0)
            data = json.load(said)["data"]
        seconds = usage.ru_utime + usage.ru_stime
        return {"data": data, "cpu_seconds": round(seconds, 1), "peak_memory_mb": usage.ru_maxrss // 1024}

    def once(self, step: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a step of the cell came to; measured unless it was before."""
        kept = self.folder / f"{step}.json"
        if not kept.exists():
            found = measure()
            kept.with_suffix(".new").write_text(json.dumps(found))
            kept.with_suffix(".new").rename(kept)
        found = json.loads(kept.read_text())
        assert isinstance(found, dict)
        return found

    # ── the steps ──

    def set_up(self) -> None:
        """A home in which the base has answered already."""
        if self.folder.exists():
            return
        making = self.folder.with_suffix(".new")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        if self.name != "base":
            shutil.copytree(self.work / "base" / "home", making / "home")
        making.rename(self.folder)

    def train(self, training: Training, seed: int, start: str) -> dict[str, Any]:
        """One training; after a kill it goes on, and its CPU seconds are those of the rest alone."""
        arguments = training.arguments(seed, start)
        runs = self.dlm("show")["data"]["runs"]
        resumed = [run["status"] for run in runs if run["kind"] == training.phase][-1:] == ["interrupted"]
        again = ["--phase", training.phase, "--no-gate", "--resume"]
        trained = self.dlm("train", *(again if resumed else arguments))
        (run,) = trained.pop("data")["runs"]
        metrics = self.dlm("metrics", "--run-id", str(run["run_id"]))["data"]["metrics"]
        curves = {
            name: [metric["steps"], [_short(value) for value in metric["values"]]]
            for name, metric in metrics.items()
            if not name.startswith(("sampling/", "errors/", "peak", "num_tokens"))
        }
        command = f"dlm train {self.study.document} {' '.join(arguments)}"
        return {"command": command, **trained, "resumed": resumed, "run": run, "curves": curves}

    def answers(self, version: str, sampling: str, suites: Sequence[str], name: str) -> dict[str, Any]:
        """A version's answers to the suites, graded both ways: the mean of every case, and the flags."""
        repeats = SAMPLINGS[sampling]
        said = self.folder / f"{name}.jsonl"
        words = [word for suite in suites for word in ("--suite", suite)]
        asked = self.dlm(
            "eval", "--version", version, *words, "--repeats", str(repeats), "--answers", str(said)
        )
        return {"cpu_seconds": asked["cpu_seconds"], "suites": self.graded(name, suites, repeats)}

    def graded(self, name: str, suites: Sequence[str], repeats: int) -> dict[str, Any]:
        """The answers in a file of this cell, by suite."""
        said = self.folder / f"{name}.jsonl"
        lines = [json.loads(line) for line in said.read_text(encoding="utf-8").splitlines()]
        by_suite = {suite: [line for line in lines if line["suite"] == suite] for suite in suites}
        return {suite: _graded(self.study.cases(suite), found, repeats) for suite, found in by_suite.items()}

    def said_of_data(self) -> list[str]:
        """What the trainings said about their rows or pairs before they began, the audit of the pairs with it."""
        lines = (self.folder / "log").read_text(encoding="utf-8").splitlines()
        return list(dict.fromkeys(line for line in lines if line.startswith("data/")))

    def gate(self, version: str) -> dict[str, Any]:
        """The gate's verdict on a version against the base, with every condition."""
        data = self.dlm("gate", "--candidate", version, "--baseline", "base", allowed=(0, 3))["data"]
        assert isinstance(data, dict)
        return data


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _graded(
    cases: Sequence[spreadsheet.SpreadsheetCase], lines: Sequence[Mapping[str, Any]], repeats: int
) -> dict[str, Any]:
    """Both graders' view of a suite's answers.

    Returns:
        for each grader: `cases`, the mean over a case's answers of the score and of each dimension, a list over cases; `flags`,
        the share of answers with each; and of all `tokens`, `truncated` and where rows are `lost`.
    """
    assert len(lines) == len(cases) * repeats, f"{len(lines)} answers to {len(cases)} cases"
    items = [
        GradeItem(
            case.prompt,
            line["output"],
            reference=case.gold,
            facts=facts_of(case),
            truncated=line["finish_reason"] == "length",
        )
        for line in lines
        for case in [cases[line["case_index"]]]
    ]
    found: dict[str, Any] = {
        "tokens": _short(sum(line["n_tokens"] for line in lines) / len(lines)),
        "truncated": sum(item.truncated for item in items) / len(items),
        "lost": where_lost(cases, lines),
    }
    for name in GRADERS:
        grader = make_grader(parse_grader(name), folder=HERE, pass_threshold=None)
        grades = grader.grade(items)
        if name == GRADERS[0]:
            recorded = [line["score"] for line in lines]
            assert all(abs(grade.score - score) < 1e-9 for grade, score in zip(grades, recorded, strict=True))
        values: dict[str, list[list[float]]] = {}
        flags: dict[str, float] = {}
        for line, grade in zip(lines, grades, strict=True):
            for metric, value in {
                "score": grade.score,
                "passed": float(grade.passed),
                **grade.dimensions,
            }.items():
                values.setdefault(metric, [[] for _ in cases])[line["case_index"]].append(value)
            for flag in grade.flags:
                flags[flag] = flags.get(flag, 0) + 1 / len(lines)
        found[name] = {
            "cases": {metric: [_short(sum(v) / len(v)) for v in per] for metric, per in values.items()},
            "flags": {flag: _short(share) for flag, share in sorted(flags.items())},
        }
    return found


def run_cell(name: str, work: Path, study: Comparison) -> None:
    """Everything of one cell; leaves its results. The base's home is made anew where it is gone: the others' begin with it."""
    kept = study.results / f"{name}.json"
    if kept.exists() and name != "base":
        return
    cell = Cell(name, work, study)
    cell.set_up()
    record: dict[str, Any] = {
        "cell": name,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        **_here(),
    }
    version = "base"
    if name == "base":
        record["gold"] = cell.once("gold", lambda: cell.dlm("eval", "--gold")["data"])
    else:
        arm, seed = name.rpartition("-")[0], int(name.rpartition("-")[2])
        record["trainings"] = []
        for number, training in enumerate(ARMS[arm], 1):
            trained = cell.once(f"train{number}", partial(cell.train, training, seed, version))
            record["trainings"].append(trained)
            version = trained["run"]["version"]
        record["said"] = cell.said_of_data()
    record["version"] = version
    record["answers"] = {
        sampling: cell.once(
            sampling, partial(cell.answers, version, sampling, list(SPLITS), f"{sampling}-answers")
        )
        for sampling in SAMPLINGS
    }
    if name == "base":
        cell.once("gate-suites", lambda: cell.dlm("eval", "--version", "base"))
    else:
        record["gate"] = cell.once("gate", partial(cell.gate, version))
        if arm in ALSO:
            record["also"] = cell.once("also", partial(_also, cell, ALSO[arm], record["trainings"][-1]))
    if not kept.exists():
        _keep(kept, record)
        print(f"{name}: done", flush=True)


def _keep(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")
    new.rename(path)


def again(name: str, work: Path, study: Comparison) -> None:
    """Grade the kept answers of a cell anew and ask its gate again; what was trained and answered stays."""
    cell, path = Cell(name, work, study), study.results / f"{name}.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    for sampling, answers in record["answers"].items():
        answers["suites"] = cell.graded(f"{sampling}-answers", list(answers["suites"]), SAMPLINGS[sampling])
    if name != "base":
        record["gate"] = cell.gate(record["version"])
    record["graded"] = _here()
    _keep(path, record)
    print(f"{name}: graded again", flush=True)


def _also(cell: Cell, which: str, trained: Mapping[str, Any]) -> dict[str, Any]:
    """The last or the peak checkpoint of a run, on long tables alone, sampled."""
    run, curves = trained["run"], trained["curves"]
    if which == "last":
        step = curves["train_loss"][0][-1]  # run["steps"] is where the version was made
    else:
        steps, rewards = curves["full_valid_mean_reward"]
        step = steps[max(range(len(rewards)), key=lambda place: rewards[place])]
    words = [
        "--run-id",
        str(run["run_id"]),
        "--step",
        str(step),
        "--force",
        "--reason",
        "the study asks it, too",
    ]
    made = cell.dlm("promote", *words)["data"]["current"]
    return {"which": which, "step": step, **cell.answers(made, "sampled", ["stress"], "also-answers")}


def _here() -> dict[str, Any]:
    """The machine, the libraries, and what this file's commit is."""
    names = ("dlm", "torch", "transformers", "peft", "tokenizers", "numpy")
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    return {
        "commit": commit[:12],  # "" outside of a repository
        "machine": {"processor": cpu[0].partition(": ")[2] if cpu else "", "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{name: library_version(name) for name in names},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cells", nargs="*", metavar="CELL")
    parser.add_argument("--work", type=Path, help="where trainings and answers are kept while it runs")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--longer", action="store_true", help="the second comparison, on tables of 54 rows")
    parser.add_argument(
        "--again", action="store_true", help="grade kept answers anew and ask the gates again"
    )
    asked = parser.parse_args()
    study = AT_54_ROWS if asked.longer else WHOLE
    unknown = set(asked.cells) - set(study.cells)
    if unknown:
        parser.error(f"no such cell: {', '.join(sorted(unknown))}; they are {', '.join(study.cells)}")
    work = (asked.work or HERE / ("work-longer" if asked.longer else "work")).resolve()
    wanted = asked.cells or study.cells
    done = [name for name in wanted if (study.results / f"{name}.json").exists()]
    missing = [] if asked.again else [name for name in wanted if name not in done]
    for name in done if asked.again else []:
        again(name, work, study)
    if missing:
        (work / "data").mkdir(parents=True, exist_ok=True)
        write_all(work / "data", study.rows)
        shutil.copy(HERE / study.document, work / study.document)
        run_cell("base", work, study)
        with ThreadPoolExecutor(asked.jobs) as pool:
            for one in [pool.submit(run_cell, name, work, study) for name in missing]:
                one.result()
    if asked.longer:
        print(write_longer(study.results, HERE / "LONGER.md"))
    else:
        print(write_report(study.results, HERE / "REPORT.md"))


if __name__ == "__main__":
    main()
