"""Does reinforcement fine-tuning learn? Facts asked of the embedded base, rewarded for being right and brief.

The base answers such questions right about nine times in ten, at any length. The grader asks for the right words
(`text_similarity:token_set` against the shortest right answer) in at most sixteen of them. Each seed trains as
`dlm train --phase rft` does, from the base, on its own questions; what came of it is measured on fresh questions of
another seed, sampled once each at temperature 1 with the same noise before and after, and greedily.

    python bench/rft_learning.py --seeds 0 1 2
    python bench/rft_learning.py --table
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

from report import RESULTS, print_table, provenance

from training import commit, store

PATH = RESULTS / "rft_learning.json"
GRADER = "0.5*text_similarity:token_set + 0.5*length:1-16 words"
QUESTIONS, FRESH = 160, 100
FRESH_SEED = 9000
KEY = ("seed", "steps", "learning_rate")


class Quiet:
    """A view that shows a line a step."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None:
        print(f"seed {self._seed}: {text}", flush=True)

    def briefing(self, briefing: Any) -> None: ...
    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        if "full_valid_mean_reward" in values:
            shown = {
                name: round(values[name], 3) for name in ("train_mean_reward", "full_valid_mean_reward", "kl")
            }
            print(f"seed {self._seed} step {step}/{total} {shown}", flush=True)

    def checkpoint(self, step: int) -> None: ...
    def stopping(self) -> None: ...


def cases(seed: int, count: int) -> list[Any]:
    """Fact questions, each with the shortest right answer."""
    from dlm.tasks import style

    return style.generate(seed, count, ("fact",), split="train")


def train_seed(seed: int, steps: int, learning_rate: float) -> dict[str, Any]:
    """Train one seed and measure its version and the base on fresh questions."""
    from dlm.document import new_document
    from dlm.store import Home
    from dlm.workflow.train import TrainOptions, train

    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLM_HOME"] = str(Path(folder) / "home")
        document = Path(folder) / "facts.dlm"
        document.write_text(new_document(), encoding="utf-8")
        prompts = Path(folder) / "prompts.jsonl"
        lines = [{"prompt": case.question, "reference": case.gold} for case in cases(seed, QUESTIONS)]
        prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        knobs = {
            "seed": seed,
            "layout": "packed_shared",
            "val_fraction": 0.2,
            "rft.steps": steps,
            "rft.learning_rate": learning_rate,
            "rft.max_new_tokens": 96,
        }
        options = TrainOptions(phase="rft", knobs=knobs, prompts_files=[prompts], grader=GRADER, device="cpu")
        cpu, wall = time.process_time(), time.perf_counter()
        (report,) = train(document, options, Quiet(seed)).runs
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        with Home.open().store(document.read_text(encoding="utf-8").split("dlm_id: ")[1].split()[0]) as found:
            version = found.versions.get(report.version).folder
            measured = {
                state: {
                    how: answer(None if state == "base" else version, how) for how in ("sampled", "greedy")
                }
                for state in ("base", "version")
            }
    reward = report.reward
    return {
        "seed": seed,
        "steps": steps,
        "learning_rate": learning_rate,
        **provenance(),
        "commit": commit(),
        "grader": GRADER,
        "cpu_s": cpu,
        "wall_s": wall,
        "held_out": None
        if reward is None
        else {name: vars(getattr(reward, name)) for name in ("before", "after", "change")},
        "last": {name: value for name, value in report.last.items() if name in ("kl", "train_mean_reward")},
        "fresh": measured,
    }


def answer(version: Path | None, how: str) -> list[dict[str, float]]:
    """One answer to each fresh question: reward, whether the fact is right, words."""
    from dlm.bases import resolve_base
    from dlm.grading import GradeItem, make_grader
    from dlm.model import Settings, load_policy, sample
    from dlm.tasks import style

    policy = load_policy(resolve_base("pocket"), version, device="cpu")
    fresh = cases(FRESH_SEED, FRESH)
    settings = Settings(temperature=float(how == "sampled"), max_new_tokens=96)
    samples = sample(
        policy, [policy.chat.prompt_ids(c.question) for c in fresh], settings, list(range(len(fresh)))
    )
    items = [
        GradeItem(case.question, one.text, case.gold, {}, one.finish_reason == "length")
        for case, one in zip(fresh, samples, strict=True)
    ]
    grades = make_grader(GRADER, folder=Path()).grade(items)
    return [
        {
            "reward": grade.score,
            "right": float(style.fact_right(case, one.text)),
            "words": float(len(one.text.split())),
        }
        for case, one, grade in zip(fresh, samples, grades, strict=True)
    ]


def rows_of(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a seed and way of answering: means with intervals of the paired difference in reward."""
    from dlm.stats import paired_difference

    rows = []
    for record in records:
        for how in ("sampled", "greedy"):
            base, version = record["fresh"]["base"][how], record["fresh"]["version"][how]
            before, after = ({at: [one["reward"]] for at, one in enumerate(side)} for side in (base, version))
            gain = paired_difference(after, before)
            rows.append(
                {
                    "seed": record["seed"],
                    "answers": how,
                    **{
                        name: f"{_mean(base, name):.3g} → {_mean(version, name):.3g}"
                        for name in ("reward", "right", "words")
                    },
                    "gain in reward": f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
                    "cpu_min": record["cpu_s"] / 60,
                }
            )
    return rows


def _mean(answers: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(one[name] for one in answers) / len(answers)


def stored() -> list[dict[str, Any]]:
    """What was measured so far."""
    found: list[dict[str, Any]] = (
        json.loads(PATH.read_text(encoding="utf-8"))["cells"] if PATH.exists() else []
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--dry", action="store_true", help="print, and keep nothing")
    options = parser.parse_args()
    for seed in [] if options.table else options.seeds:
        record = train_seed(seed, options.steps, options.learning_rate)
        print_table(rows_of([record]))
        if not options.dry:
            store(PATH, record, KEY)
    if not options.dry:
        print_table(rows_of(stored()))


if __name__ == "__main__":
    main()
