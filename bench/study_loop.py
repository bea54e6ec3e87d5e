"""Does the loop teach what its judge likes? Two rounds of mine, apply, train, judged on questions that no round asked.

Protocol, fixed before the seeds below were run:

A document on the embedded base holds 40 questions, half for a fact of a short text and half for advice, answered in the
styles that the base's own corpus has (45 % brief), and no pairs. Commands run as a user runs them, every knob at its
default unless named here:

    dlm train DOC --phase sft
    dlm preference mine DOC --questions FILE --samples 8 --judge JUDGE --seed SEED --apply      } twice, a new FILE
    dlm train DOC --phase preference                                                           } of 400 questions

FILE holds questions drawn as the document's were, of which at most two stand there, too. Judges: `brief`, the command `brief_judge.py`, which gives
.5 for an answer on the topic, 1 when it is brief, too, and does not look at facts; and `sway`, dlm's default. Seeds 1, 2, 3,
each under both judges from the same document.

Measured of the version before the first round (v0001) and after each round, on 50 held-out questions of each seed (25 for a
fact, 25 for advice, none in a document, a FILE or the base's corpus), four answers each at temperature 1, as mining samples them:

    brief       share of answers of 1 to 16 words without filler or courtesy (`style.is_brief`)
    on_topic    share on the topic (`style.on_topic`)
    facts       share with the right fact, of the 25 questions for one (`style.fact_right`)
    words       words per answer

A figure is a mean over questions with a bootstrap interval over questions; the line `all` puts the questions of the three
seeds together. `…_wide` are the same of 200 other held-out questions (100 for a fact), one greedy answer each.

Success of a seed: `brief` below .6 before and .85 or more after two rounds, `on_topic` and `facts` each at least .9 of what
they were. The goal is met when all three seeds succeed under `brief`. `sway` has no goal: its figures stand beside.

How the sizes were chosen: on seed 90 under `brief`, 100 questions × 4 samples a round came to .56 → .61 → .70 and
300 × 8 to .56 → .75 → .89; 400 × 8 is what fits into half an hour for six documents. Nothing else was tried.

    python bench/study_loop.py [--seeds 1 2 3] [--judges brief sway]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from brevity import mixed_answers
from brief_judge import ASKED, asked, unique
from report import write_report

from dlm.bases import resolve_base
from dlm.document import load, new_ulid, render_instruction
from dlm.mining import Question, seed_of
from dlm.model import Policy, Settings, load_policy, sample
from dlm.stats import Estimate, mean
from dlm.store import Home
from dlm.tasks import style

ROWS, MINED_SAMPLES, HELD_OUT, SAMPLES, WIDE, MOST_TOKENS = 40, 8, 50, 4, 200, 128
TRAIN_SEED, HELD_OUT_SEED, WIDE_SEED = 600_000, 920_000, 930_000  # seeds from 900,000 on are in no corpus
ROUNDS = (1, 2)
JUDGES = ("brief", "sway")
START_BELOW, END_AT_LEAST, KEPT_AT_LEAST = 0.6, 0.85, 0.9

Values = Mapping[str, Sequence[float]]  # by measure, a figure for each question


def write_document(path: Path, seed: int) -> None:
    """Questions and answers in the styles that the base's own corpus has; no pairs."""
    cases = unique(TRAIN_SEED + seed, ROWS, "train")
    turns = [(case.question, text) for case, text in zip(cases, mixed_answers(cases, seed), strict=True)]
    header = (
        f"---\ndlm_id: {new_ulid()}\ndlm_version: 15\nbase_model: pocket\ntraining:\n  seed: {seed}\n---\n\n"
    )
    path.write_text(header + render_instruction(turns) + "\n", encoding="utf-8")


def write_questions(path: Path, seed: int, number: int) -> None:
    """A file for `--questions`."""
    lines = [json.dumps({"prompt": case.question}) for case in asked(seed, number)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def judge_of(name: str, seed: int, number: int) -> str:
    """The judge as `--judge` names it."""
    if name == "sway":
        return "sway"
    script = Path(__file__).with_name("brief_judge.py")
    return "cli-stream:" + shlex.join([sys.executable, str(script), str(seed), str(number)])


def dlm(*arguments: str, home: Path) -> dict[str, Any]:
    """Run a command as a user does; what its `--json` says."""
    env = {**os.environ, "DLM_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "dlm", *arguments, "--json"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"dlm {' '.join(arguments)} failed:\n{done.stderr}")
    data: dict[str, Any] = json.loads(done.stdout)["data"]
    return data


# --- one document under one judge ---------------------------------------------------------------------------------


def run_arm(judge: str, seed: int, folder: Path) -> tuple[list[Values], list[dict[str, Any]]]:
    """Train, then mine, apply and train in each round. The figures of every version, and what each round mined."""
    path, home = folder / "loop.dlm", folder / "home"
    write_document(path, seed)
    dlm("train", str(path), "--phase", "sft", home=home)
    versions, rounds = [look(path, home, "v0001", seed)], []
    for number in ROUNDS:
        file = folder / f"questions-{number}.jsonl"
        write_questions(file, seed, number)
        named = judge_of(judge, seed, number)
        options = ["--questions", str(file), "--samples", str(MINED_SAMPLES), "--judge", named]
        options += ["--seed", str(seed), "--apply"]
        mined = dlm("preference", "mine", str(path), *options, home=home)
        rounds.append(told_of(mined["mined"], asked(seed, number)))
        dlm("train", str(path), "--phase", "preference", home=home)
        versions.append(look(path, home, f"v{number + 1:04}", seed))
    return versions, rounds


def told_of(mined: Mapping[str, Any], cases: Sequence[style.StyleCase]) -> dict[str, Any]:
    """What a mine run made, and of its pairs how many chose what the study wants."""
    by_question = {case.question: case for case in cases}
    pairs = [(by_question[pair["prompt"]], pair["chosen"], pair["rejected"]) for pair in mined["pairs"]]
    facts = [pair for pair in pairs if pair[0].kind == "fact"]
    return {
        "pairs": len(pairs),
        "applied": len(mined["applied"]["written"]) if mined["applied"] else 0,
        "skipped_prompts": {reason: count for reason, count in mined["skipped_prompts"].items() if count},
        "brief_chosen": _share_of(pairs, lambda case, better, worse: style.is_brief(better)),
        "brief_rejected": _share_of(pairs, lambda case, better, worse: style.is_brief(worse)),
        "right_fact_chosen": _share_of(facts, lambda case, better, worse: style.fact_right(case, better)),
        "right_fact_rejected": _share_of(facts, lambda case, better, worse: style.fact_right(case, worse)),
    }


def _share_of(
    pairs: Sequence[tuple[style.StyleCase, str, str]], holds: Callable[[style.StyleCase, str, str], bool]
) -> float | None:
    return fmean(holds(*pair) for pair in pairs) if pairs else None


def look(path: Path, home: Path, name: str, seed: int) -> Values:
    """All measures of a version."""
    with Home.open(home).store(load(path).header.dlm_id) as store:
        version = store.versions.current()
        if version is None or version.name != name:
            raise SystemExit(f"the current version is {version and version.name}, not {name}")
        policy = load_policy(resolve_base("pocket", None), version.folder)
    held_out = unique(HELD_OUT_SEED + seed, HELD_OUT, "held_out")
    wide = unique(WIDE_SEED + seed, WIDE, "held_out")
    values = figures(held_out, answers(policy, held_out, 1.0, SAMPLES, seed))
    greedy = figures(wide, answers(policy, wide, 0.0, 1, seed))
    return values | {f"{measure}_wide": found for measure, found in greedy.items() if measure != "words"}


def answers(
    policy: Policy, cases: Sequence[style.StyleCase], temperature: float, samples: int, seed: int
) -> list[list[str]]:
    """So many answers to each question."""
    questions = [Question(case.question, "held out") for case in cases]
    prompts = [policy.chat.prompt_ids(question.prompt) for question in questions for _ in range(samples)]
    seeds = [seed_of(question, number, seed) for question in questions for number in range(samples)]
    settings = Settings(temperature=temperature, max_new_tokens=MOST_TOKENS)
    texts = [one.text for one in sample(policy, prompts, settings, seeds)]
    return [texts[start : start + samples] for start in range(0, len(texts), samples)]


def figures(cases: Sequence[style.StyleCase], texts: Sequence[Sequence[str]]) -> dict[str, list[float]]:
    """By measure a figure for each question, the mean over its answers; `facts` are of the questions for one."""
    asked_and_said = list(zip(cases, texts, strict=True))
    return {
        "brief": [fmean(map(style.is_brief, said)) for _, said in asked_and_said],
        "on_topic": [fmean(style.on_topic(case, text) for text in said) for case, said in asked_and_said],
        "facts": [
            fmean(style.fact_right(case, text) for text in said)
            for case, said in asked_and_said
            if case.kind == "fact"
        ],
        "words": [fmean(len(text.split()) for text in said) for _, said in asked_and_said],
    }


# --- the tables ---------------------------------------------------------------------------------------------------


def row(judge: str, seed: str, stages: Sequence[Values]) -> dict[str, Any]:
    """A line of the table: every measure at the start and after the last round, and whether that is success."""
    found: dict[str, Any] = {"judge": judge, "seed": seed}
    for measure in stages[0]:
        estimates = [mean(stage[measure]) for stage in stages]
        found[measure] = " → ".join(_shown(one) for one in (estimates[0], estimates[-1]))
    start, end = stages[0], stages[-1]
    found["success"] = bool(
        fmean(start["brief"]) < START_BELOW
        and fmean(end["brief"]) >= END_AT_LEAST
        and all(
            fmean(end[measure]) >= KEPT_AT_LEAST * fmean(start[measure]) for measure in ("on_topic", "facts")
        )
    )
    return found


def by_round(judge: str, seed: str, stages: Sequence[Values]) -> list[dict[str, Any]]:
    """Every measure of every version."""
    return [
        {"judge": judge, "seed": seed, "round": number, "measure": measure, **asdict(mean(values))}
        for number, stage in enumerate(stages)
        for measure, values in stage.items()
    ]


def pooled(runs: Sequence[Sequence[Values]]) -> list[Values]:
    """The questions of all seeds together, stage by stage."""
    return [
        {measure: [value for stage in stages for value in stage[measure]] for measure in stages[0]}
        for stages in zip(*runs, strict=True)
    ]


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--judges", nargs="+", choices=JUDGES, default=list(JUDGES))
    parser.add_argument("--name", default="study_loop", help="of the file under bench/results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    rounds_of: list[dict[str, Any]] = []
    mined: list[dict[str, Any]] = []
    began = time.monotonic()
    for judge in arguments.judges:
        runs = []
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as folder:
                stages, rounds = run_arm(judge, seed, Path(folder))
            runs.append(stages)
            rows.append(row(judge, str(seed), stages))
            rounds_of += by_round(judge, str(seed), stages)
            mined += [
                {"judge": judge, "seed": seed, "round": number, **told}
                for number, told in enumerate(rounds, 1)
            ]
            print(f"{time.monotonic() - began:.0f} s", rows[-1], mined[-len(ROUNDS) :], flush=True)
        rows.append(row(judge, "all", pooled(runs)))
        rounds_of += by_round(judge, "all", pooled(runs))
    write_report(
        arguments.name,
        rows,
        by_round=rounds_of,
        mined=mined,
        asked=ASKED,
        mined_samples=MINED_SAMPLES,
        rows_per_document=ROWS,
        held_out=HELD_OUT,
        samples=SAMPLES,
        wide=WIDE,
        threads=1,
        seconds=round(time.monotonic() - began),
    )


if __name__ == "__main__":
    main()
