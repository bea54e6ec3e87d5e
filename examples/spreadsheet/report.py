"""REPORT.md of the study: tables, curves and the answers to PROTOCOL.md's sentences, from results/ alone.

python report.py
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from measures import (
    GREEDY,
    KEPT,
    PRIMARY,
    PUBLISHED,
    STRICT,
    Answer,
    Cell,
    Study,
    answers,
    answers_longer,
    flag_share,
    training_seconds,
)

from dlm.cli.svg_chart import ChartCurve, svg_chart
from dlm.stats import Estimate

HERE = Path(__file__).parent
# run, composite, preservation, unit consistency, RH-like of 80, stress composite, stress preservation: as published
THEIRS = (
    ("base", ".9569", ".9750", ".8625", "2", ".6450", ".20"),
    ("SFT v0 (mode-collapsed)", ".9110", ".7500", "1.0", "20", "–", "–"),
    ("SFT v1 gentle", ".9956", ".9875", "1.0", "1", ".7375", ".25"),
    ("SFT v2 50 % stress", ".9912", ".9750", "1.0", "2", ".7375", ".25"),
    ("SFT v3 curriculum", ".9912", ".9750", "1.0", "2", ".7375", ".25"),
    ("DPO v0", ".9506", ".9750", ".8375", "2", ".6325", ".20"),
)
SIDE_BY_SIDE = ("base", "sft-collapsed", "sft-gentle", "sft-half-stress", "sft-curriculum", "dpo")
ARMS = (*SIDE_BY_SIDE[1:5], "sft-mixed", "sft-stress", "dpo", "rft", "rft-long", "rft-published")
CURVES = {
    "sft": (
        ("Training loss", "train_loss", False),
        ("Validation loss", "valid_loss", True),
        ("Token accuracy", "train_mean_token_accuracy", False),
    ),
    "dpo": (
        ("Training loss", "train_loss", False),
        ("Training pairs ranked right", "rewards/accuracies", False),
        ("Margin", "rewards/margins", False),
        ("Held-out pairs ranked right", "val_pref_acc", True),
    ),
    "rft": (
        ("Mean reward of a round", "train_mean_reward", False),
        ("Mean reward of held-out prompts", "full_valid_mean_reward", True),
        ("Divergence from the base, nats a token", "kl", False),
        ("Tokens an answer", "completion_tokens_mean", False),
    ),
}
STYLE = """<style>
svg { background: #fff; font-family: system-ui, sans-serif; }
.grid { stroke: #d0d7de; } .axis { stroke: #57606a; } .tick { fill: #57606a; font-size: 11px; }
.line { fill: none; stroke-width: 1.8; } .faint { fill: none; opacity: .35; }
.line.c0, .faint.c0 { stroke: #c2570c; } .dot.c0 { fill: #c2570c; }
.line.c1, .faint.c1 { stroke: #0b6bcb; } .dot.c1 { fill: #0b6bcb; }
.line.c2, .faint.c2 { stroke: #7c3aed; } .dot.c2 { fill: #7c3aed; }
</style>"""

Lines = Iterable[str]


def write_report(results: Path, path: Path) -> Path:
    """Write the report and the curves beside it; returns the report's path."""
    study = Study.read(results)
    pieces = chain(
        _head(study, answers(study), "Row preservation: what came out", "study.py"),
        _conclusions(path.parent / "CONCLUSIONS.md"),
        _comparison(study),
        _side_by_side(study),
        _details(study, "sheets.dlm", path.parent / "curves"),
    )
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return path


def write_longer(results: Path, path: Path) -> Path:
    """Write the report of the comparison on tables of 54 rows, the curves beside it; returns its path."""
    study = Study.read(results)
    pieces = chain(
        _head(
            study,
            answers_longer(study),
            "Row preservation where the base fails: 54 rows",
            "study.py --longer",
        ),
        _conclusions(path.parent / "LONGER-CONCLUSIONS.md"),
        _comparison(study),
        _details(study, "longer.dlm", path.parent / "curves-longer"),
    )
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return path


def _details(study: Study, document: str, curves: Path) -> Lines:
    """What both reports say behind their own tables."""
    yield from _kept(study)
    yield from _everything(study)
    yield from _lost(study)
    yield from _ceilings(study, document)
    yield from _audit(study)
    yield from _gate(study, document)
    yield from _cost(study)
    yield from _curves(study, curves)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _number(value: Estimate) -> str:
    return f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}]"


def _change(value: Estimate) -> str:
    return f"{value.value:+.4f} [{value.low:+.4f}, {value.high:+.4f}]"


def _seeds(study: Study, arm: str) -> list[Cell]:
    return [study.base] if arm == "base" else list(study.arms.get(arm, {}).values())


def _present(study: Study) -> list[str]:
    return [arm for arm in ARMS if study.arms.get(arm)]


def _head(study: Study, found: Sequence[Answer], title: str, script: str) -> Lines:
    cells = [study.base, *(cell for seeds in study.arms.values() for cell in seeds.values())]
    places = {
        f"{cell['machine']['processor']}, {cell['machine']['cores']} cores, one thread a run. "
        + ", ".join(f"{name} {value}" for name, value in cell["versions"].items())
        for cell in cells
    }
    graded = {cell.get("graded", cell).get("commit", "") for cell in cells}
    yield f"# {title}"
    yield ""
    yield f"Written by `python {script}`; the questions, arms and measures are those of [PROTOCOL.md](PROTOCOL.md), fixed before the runs."
    yield f"Machine{'s' if len(places) > 1 else ''}: {'; '.join(sorted(places))}."
    yield f"Answers graded and gates asked by the code of {', '.join(sorted(commit or 'a commit not recorded' for commit in graded))}."
    yield "Intervals are 95 %, by a bootstrap over cases; differences to the base are paired over cases. They speak of other cases, not of other seeds:"
    yield "of seeds there are three, each shown."
    yield ""
    yield "## What counts as yes"
    yield ""
    yield from _table(
        ("sentence", "answer", "figures"),
        ((f"{answer.sentence}", f"**{answer.word}**", answer.figures) for answer in found),
    )


def _conclusions(path: Path) -> Lines:
    """What somebody wrote who had read all of it; the figures are theirs."""
    if path.exists():
        yield path.read_text(encoding="utf-8")


def _comparison(study: Study) -> Lines:
    yield "## The comparison: long tables, adequate budget, strict"
    yield ""
    yield "Rows of the source kept in order: four sampled answers a case (the primary measure) and one greedy, each with its difference to the base; of the"
    yield "sampled ones which share of the rows belongs, which of the units are right, and which of the answers are perfect. The compared arms first."
    yield ""
    rows = []
    compared = ("base", "sft-stress", "dpo", "rft")
    for arm in (*compared, *(arm for arm in reversed(ARMS) if arm not in compared)):
        seeds = {0: study.base} if arm == "base" else study.arms.get(arm, {})
        for seed, cell in [*seeds.items(), *([(-1, None)] if len(seeds) == 3 else [])]:
            cells = [cell] if cell is not None else list(seeds.values())
            rows.append(
                (
                    arm,
                    "" if arm == "base" else f"{seed}" if seed > 0 else "**mean**",
                    _number(study.mean(cells, PRIMARY)),
                    "" if arm == "base" else _change(study.gain(cells, PRIMARY)),
                    _number(study.mean(cells, GREEDY)),
                    "" if arm == "base" else _change(study.gain(cells, GREEDY)),
                    *(
                        f"{study.mean(cells, ('stress', 'sampled', STRICT, metric)).value:.4f}"
                        for metric in ("row_precision", "unit_consistency", "passed")
                    ),
                )
            )
    yield from _table(
        (
            "arm",
            "seed",
            "preserved, sampled",
            "to the base",
            "preserved, greedy",
            "to the base",
            "row precision",
            "units",
            "passed",
        ),
        rows,
    )
    yield "Beside them: the last checkpoint of the runs whose best one counts, and the peak of those whose end counts, by the same measure."
    yield ""
    rows = []
    for arm in _present(study):
        for seed, cell in study.arms[arm].items():
            if "also" in cell:
                also = cell["also"]
                values = also["suites"]["stress"][STRICT]["cases"]["data_preservation"]
                kept = cell["trainings"][-1]["run"]
                shown = sum(values) / len(values)
                rows.append(
                    (
                        arm,
                        str(seed),
                        f"{also['which']}, step {also['step']}; counts: {kept['steps']}",
                        f"{shown:.4f}",
                    )
                )
    yield from _table(("arm", "seed", "checkpoint", "preserved, sampled"), rows)


def _kept(study: Study) -> Lines:
    yield "## What must not get worse"
    yield ""
    yield "The protocol's measures beside the rows of long tables, sampled, strict, adequate budget: changes to the base, seeds pooled; bold where surely"
    yield "worse."
    yield ""
    rows = []
    for arm in _present(study):
        cells = _seeds(study, arm)
        gains = [study.gain(cells, (suite, "sampled", STRICT, metric)) for suite, metric in KEPT]
        told = (f"**{_change(gain)}**" if gain.high < 0 else _change(gain) for gain in gains)
        rows.append((arm, str(len(cells)), *told))
    yield from _table(("arm", "seeds", *(f"{metric}, {suite}" for suite, metric in KEPT)), rows)


def _side_by_side(study: Study) -> Lines:
    yield "## The published six rows, and ours"
    yield ""
    yield "Graded `published`, greedy; ours on 80 tables of 8 to 12 rows and 40 of 40 rows, theirs on 80 and 40 of their own. Ours is the mean of the"
    yield "seeds that are there, long tables under the starving budget (theirs) and the adequate one. Another base, another task profile: only the shape compares."
    yield "Units do not: this grader looks for `$M` and an M that stands alone, and these tables write `$1.2M` and `3M`, which it never sees."
    yield ""
    rows = []
    for theirs, arm in zip(THEIRS, SIDE_BY_SIDE, strict=True):
        rows.append((f"theirs: {theirs[0]}", *theirs[1:], ""))
        cells = _seeds(study, arm)
        if not cells:
            continue

        def shown(suite: str, metric: str, cells: list[Cell] = cells) -> str:
            return _number(study.mean(cells, (suite, "greedy", PUBLISHED, metric)))

        hacked = [80 * flag_share(cell, "tables", "greedy", PUBLISHED, "rh_like") for cell in cells]
        rows.append(
            (
                f"ours: {arm}",
                shown("tables", "score"),
                shown("tables", "data_preservation"),
                shown("tables", "unit_consistency"),
                f"{sum(hacked) / len(hacked):.1f}",
                shown("stress-starving", "score"),
                shown("stress-starving", "data_preservation"),
                shown("stress", "data_preservation"),
            )
        )
    yield from _table(
        (
            "run",
            "composite",
            "preservation",
            "units",
            "RH-like",
            "stress composite, starving",
            "stress preservation, starving",
            "stress preservation, adequate",
        ),
        rows,
    )


def _everything(study: Study) -> Lines:
    yield "## Every arm, suite, grader and way of answering"
    yield ""
    yield "Means of the seeds with their intervals; in brackets the seeds by themselves, for the strict preservation of rows."
    yield ""
    for suite in ("tables", "stress", "stress-starving"):
        for sampling in ("greedy", "sampled"):
            yield f"### {suite}, {sampling}"
            yield ""
            rows = []
            for arm in ("base", *_present(study)):
                cells = _seeds(study, arm)
                keys = [
                    *(
                        (STRICT, metric)
                        for metric in ("data_preservation", "row_precision", "unit_consistency", "score")
                    ),
                    *((PUBLISHED, metric) for metric in ("data_preservation", "unit_consistency", "score")),
                ]
                values = [_number(study.mean(cells, (suite, sampling, *key))) for key in keys]
                each = [study.mean([cell], (suite, sampling, *keys[0])).value for cell in cells]
                by_seed = "" if len(cells) == 1 else f" ({', '.join(f'{value:.4f}' for value in each)})"
                cut = [cell["answers"][sampling]["suites"][suite]["truncated"] for cell in cells]
                rows.append(
                    (
                        arm,
                        f"{values[0]}{by_seed}",
                        *values[1:],
                        f"{sum(cut) / len(cut):.1%}",
                    )
                )
            yield from _table(
                (
                    "arm",
                    "rows kept",
                    "row precision",
                    "units",
                    "score",
                    "published: kept",
                    "published: units",
                    "published: composite",
                    "cut off",
                ),
                rows,
            )


def _lost(study: Study) -> Lines:
    yield "## Where rows are lost"
    yield ""
    yield "Long tables, sampled, adequate budget, all seeds together, answers that the budget cut off left out: after the last row that an answer keeps, as one that stops too early loses them, or"
    yield "between rows that it keeps. A row is known by its name and group."
    yield ""
    rows = []
    for arm in ("base", *_present(study)):
        each = [cell["answers"]["sampled"]["suites"]["stress"]["lost"] for cell in _seeds(study, arm)]
        answers, with_loss, lost, at_end = (
            sum(one[name] for one in each) for name in ("answers", "with_loss", "rows", "at_end")
        )
        quarters = [sum(one["by_quarter"][place] for one in each) for place in range(4)]
        rows.append(
            (
                arm,
                f"{with_loss} of {answers}",
                str(sum(one["cut_off"] for one in each)),
                str(lost),
                f"{at_end} ({at_end / lost:.0%})" if lost else "0",
                str(lost - at_end),
                " · ".join(map(str, quarters)),
            )
        )
    yield from _table(
        (
            "arm",
            "answers that lose rows",
            "cut off",
            "rows lost",
            "at the end",
            "between kept rows",
            "by quarter of the table",
        ),
        rows,
    )


def _ceilings(study: Study, document: str) -> Lines:
    yield "## Gold ceilings"
    yield ""
    yield f"The references themselves under each suite's token budget (`dlm eval {document} --gold`)."
    yield ""
    rows = [
        (
            name,
            str(gold["budget"]),
            f"{gold['reachable']} of {gold['cases']}",
            f"{gold['means']['data_preservation']:.3f}",
            f"{gold['means']['score']:.3f}",
        )
        for name, gold in study.base["gold"]["ceilings"].items()
    ]
    yield from _table(
        ("suite", "budget, tokens", "references that fit", "rows kept at most", "score at most"), rows
    )


def _audit(study: Study) -> Lines:
    yield "## The audit of the pairs"
    yield ""
    cells = study.arms.get("dpo", {})
    findings = [text for cell in cells.values() for text in cell["said"]]
    for text in dict.fromkeys(findings):
        yield f"- {text}"
    yield "" if findings else "No dpo run yet.\n"


def _gate(study: Study, document: str) -> Lines:
    yield "## The gate, by run"
    yield ""
    yield f"`dlm gate {document} --candidate V --baseline base`, the usual conditions (`gate: {{}}`), one greedy answer a case."
    yield ""
    found = [(arm, seed, cell["gate"]) for arm in _present(study) for seed, cell in study.arms[arm].items()]
    yield from _table(
        ("arm", "seed", "verdict", "reason"),
        ((arm, str(seed), f"**{gate['verdict']}**", gate["reason"]) for arm, seed, gate in found),
    )
    for arm in _present(study):
        gates = {seed: cell["gate"] for seed, cell in study.arms[arm].items()}
        yield f"### {arm}"
        yield ""
        texts = list(dict.fromkeys(c["condition"] for gate in gates.values() for c in gate["conditions"]))
        by_seed = {seed: {c["condition"]: c for c in gate["conditions"]} for seed, gate in gates.items()}
        yield from _table(
            ("condition", *(f"seed {seed}" for seed in gates)),
            ((f"`{text}`", *(_condition(by_seed[seed].get(text)) for seed in gates)) for text in texts),
        )


def _condition(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    numbers = [
        f"{name} {found[key]:.4g}"
        for key, name in (("value", "is"), ("needed", "needs"), ("gold", "gold"))
        if found[key] is not None
    ]
    return f"{found['status']} ({', '.join(numbers)})" if numbers else f"{found['status']}"


def _cost(study: Study) -> Lines:
    yield "## What each run cost"
    yield ""
    yield "CPU seconds of the whole `dlm train`, start-up and held-out measurements with it; two runs ran at a time, each on one core."
    yield ""
    rows = []
    for arm in _present(study):
        for seed, cell in study.arms[arm].items():
            runs = cell["trainings"]
            rows.append(
                (
                    arm,
                    str(seed),
                    " + ".join(str(training["run"]["steps"]) for training in runs),
                    f"{training_seconds(cell):.0f}"
                    + (" (resumed: by the clock)" if any(t["resumed"] for t in runs) else ""),
                    str(max(training["peak_memory_mb"] for training in runs)),
                    "; ".join(training["run"]["verdict"]["text"] for training in runs),
                )
            )
    yield from _table(("arm", "seed", "steps", "CPU seconds", "peak memory, MB", "what the curves say"), rows)


def _curves(study: Study, folder: Path) -> Lines:
    yield "## Curves"
    yield ""
    folder.mkdir(exist_ok=True)
    for arm in _present(study):
        kind = arm.partition("-")[0]
        yield f"### {arm}"
        yield ""
        for number in range(len(next(iter(study.arms[arm].values()))["trainings"])):
            for title, metric, few in CURVES[kind]:
                drawn = [
                    _curve(f"seed {seed}", cell["trainings"][number]["curves"].get(metric), few)
                    for seed, cell in study.arms[arm].items()
                ]
                curves = [curve for curve in drawn if curve is not None]
                svg = svg_chart(title, f"{arm}, {len(curves)} seeds", curves)
                if not svg:
                    continue
                stage = f"-{number + 1}" if number else ""
                name = f"{arm}{stage}-{metric.replace('/', '-')}.svg"
                (folder / name).write_text(
                    svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
                        ">", f">{STYLE}", 1
                    )
                    + "\n",
                    encoding="utf-8",
                )
                last = ", ".join(f"{curve.label} ends at {curve.values[-1]:.4g}" for curve in curves)
                yield f"{title}{', second run' if number else ''} (orange, blue, violet: seeds 1, 2, 3; {last})"
                yield ""
                yield f"![{title} of {arm}]({folder.name}/{name})"
                yield ""


def _curve(label: str, points: Sequence[Sequence[Any]] | None, few: bool) -> ChartCurve | None:
    if not points:
        return None
    kept = [(step, value) for step, value in zip(*points, strict=True) if value is not None]
    steps, values = zip(*kept, strict=True)
    return ChartCurve(label, np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64), few=few)


if __name__ == "__main__":
    print(write_report(HERE / "results", HERE / "REPORT.md"))
