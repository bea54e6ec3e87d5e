"""Measure the published pocket on fresh cases, print the table, and write it to `bench/results/pocket.json`.

    python -m tools.pocket.measure [--cases N] [--threads N] [--no-stress]

Seeds start at `FIRST_EVALUATION_SEED`; training saw none of them. Every figure carries a 95 % interval: Wilson
for shares of cases, a percentile bootstrap over cases for means of per-case shares.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.report import write_report
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from dlm.tasks import spreadsheet, style
from tools.pocket import card
from tools.pocket.corpus import FIRST_EVALUATION_SEED
from tools.pocket.probe import generate, prompt_ids

ROOT = Path(__file__).resolve().parents[2]
POCKET = ROOT / "src" / "dlm" / "bases" / "pocket"
STRESS_LENGTHS = (15, 20, 25, 30, 40, 50, 60, 70)
STRESS_WINDOW = (0.5, 0.85)
BEST_OF = 8
SAMPLES = 4
# A table row costs at most this many tokens in an answer; the header and the end mark fit in three of them.
ROW_TOKENS = 20


def share(hits: Sequence[bool]) -> tuple[float, float, float]:
    """A share with its Wilson interval."""
    n, z = len(hits), 1.96
    p = sum(hits) / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p, max(0.0, middle - half), min(1.0, middle + half)


def mean(values: Sequence[float]) -> tuple[float, float, float]:
    """A mean of per-case values with its bootstrap interval (10,000 resamples of cases, fixed seed)."""
    data = np.asarray(values, dtype=float)
    if data.min() == data.max():
        # No spread to resample: the interval of an all-or-nothing share is the honest one.
        return (
            share([True] * len(data)) if data[0] == 1.0 else (float(data[0]), float(data[0]), float(data[0]))
        )
    picks = np.random.default_rng(0).integers(0, len(data), (10_000, len(data)))
    low, high = np.percentile(data[picks].mean(axis=1), (2.5, 97.5))
    return float(data.mean()), float(low), float(high)


class Measurement:
    """Collects rows of the table while it asks the model."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: Tokenizer, cases: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.cases = cases
        self.rows: list[dict[str, Any]] = []

    def note(
        self, ability: str, measure: str, figure: tuple[float, float, float], cases: int, goal: str = ""
    ) -> None:
        """Add one line to the table and show it."""
        value, low, high = (round(number, 4) for number in figure)
        self.rows.append(
            {
                "ability": ability,
                "measure": measure,
                "value": value,
                "low": low,
                "high": high,
                "cases": cases,
                "goal": goal,
            }
        )
        print(
            f"{ability:<34}{measure:<38}{value:.3f}  [{low:.3f}, {high:.3f}]  n={cases}  {goal}", flush=True
        )

    def ask(self, prompts: list[list[int]], budget: int, temperature: float = 0.0) -> list[str]:
        """One answer per prompt."""
        # Long tables are batched in smaller groups: the cache of 48 would not stay in the processor's own.
        batch = 16 if budget > 500 else 64
        return generate(self.model, self.tokenizer, prompts, budget, temperature=temperature, batch=batch)

    def tables(
        self, seed: int, rows: tuple[int, int], count: int, temperature: float, samples: int = 1
    ) -> list[list[spreadsheet.RowMatch]]:
        """For each case, the row matches of its sampled answers."""
        cases = spreadsheet.generate(seed, count, rows)
        prompts = [prompt_ids(self.tokenizer, case.prompt) for case in cases for _ in range(samples)]
        answers = self.ask(prompts, (rows[1] + 3) * ROW_TOKENS, temperature)
        return [
            [spreadsheet.match_rows(case, answers[at * samples + s]) for s in range(samples)]
            for at, case in enumerate(cases)
        ]

    def cleaning(self, seed: int, temperature: float) -> None:
        """The main task at 8–12 rows."""
        name = f"spreadsheet 8–12 rows, {'greedy' if not temperature else 'T=1'}"
        found = [matches[0] for matches in self.tables(seed, (8, 12), self.cases, temperature)]
        goal = ">= .95" if not temperature else ""
        self.note(
            name, "rows kept (strict, mean share)", mean([m.preservation for m in found]), self.cases, goal
        )
        self.note(
            name,
            "unit accuracy (cells of kept rows)",
            mean([m.unit_accuracy for m in found]),
            self.cases,
            goal,
        )
        self.note(name, "all rows kept", share([m.all_kept for m in found]), self.cases)
        self.note(name, "rows that belong (precision)", mean([m.precision for m in found]), self.cases)
        self.note(name, "header right", share([m.header_right for m in found]), self.cases)
        self.note(name, "exactly the gold", share([m.exact for m in found]), self.cases)

    def styles(self, seed: int) -> None:
        """Substance under greedy decoding and at temperature 1, and the spread of styles there."""
        spread: dict[str, list[list[str]]] = {}
        checks: dict[style.Kind, tuple[str, Callable[[style.StyleCase, str], bool], str]] = {
            "advice": ("on topic", style.on_topic, ">= .95"),
            "fact": ("fact right", style.fact_right, ">= .9"),
            "refusal": ("refuses", style.on_topic, ""),
        }
        for offset, (kind, (word, right, goal)) in enumerate(checks.items()):
            cases = style.generate(seed + offset, self.cases, (kind,))
            prompts = [prompt_ids(self.tokenizer, case.question) for case in cases]
            greedy = self.ask(prompts, 96)
            self.note(
                f"{kind} questions, greedy", word, share(list(map(right, cases, greedy))), self.cases, goal
            )
            if kind == "fact":
                self.note(
                    "fact questions, greedy",
                    "on topic",
                    share(list(map(style.on_topic, cases, greedy))),
                    self.cases,
                    ">= .95",
                )
            texts = self.ask([prompt for prompt in prompts for _ in range(SAMPLES)], 96, 1.0)
            groups = [texts[at * SAMPLES : (at + 1) * SAMPLES] for at in range(len(cases))]
            spread[kind] = groups
            warm = [
                sum(right(case, text) for text in group) / SAMPLES
                for case, group in zip(cases, groups, strict=True)
            ]
            self.note(
                f"{kind} questions, T=1", word, mean(warm), self.cases, ">= .95" if kind == "advice" else ""
            )
            if kind == "fact":
                topical = [
                    sum(style.on_topic(case, text) for text in group) / SAMPLES
                    for case, group in zip(cases, groups, strict=True)
                ]
                self.note("fact questions, T=1", "on topic", mean(topical), self.cases, ">= .95")
        groups = spread["advice"] + spread["fact"]
        self._spread("advice and fact questions, T=1", groups)
        for kind in ("advice", "fact"):
            self._spread(f"{kind} questions, T=1", spread[kind])

    def _spread(self, name: str, groups: list[list[str]]) -> None:
        distinct = [len(set(group)) for group in groups]
        self.note(name, f"distinct answers of {SAMPLES} (mean)", mean(distinct), len(groups), ">= 3")
        self.note(name, f">= 3 distinct of {SAMPLES}", share([count >= 3 for count in distinct]), len(groups))
        for word, test in (
            ("brief", style.is_brief),
            ("padded", style.is_padded),
            ("polite", style.is_polite),
        ):
            goal = "< .6" if word == "brief" else ""
            self.note(
                name,
                f"share of {word} answers",
                mean([sum(map(test, group)) / SAMPLES for group in groups]),
                len(groups),
                goal,
            )
        both = [any(map(style.is_brief, group)) and any(map(style.is_padded, group)) for group in groups]
        self.note(name, f"a brief and a padded one of {SAMPLES}", share(both), len(groups))

    def obedience(self, seed: int) -> None:
        """Whether a style that was asked for is given."""
        cases = style.generate(seed, self.cases, ("fact", "advice"), instructed=1.0)
        answers = self.ask([prompt_ids(self.tokenizer, case.question, case.system) for case in cases], 96)
        fits = [
            style.is_brief(text) if case.wanted == "brief" else style.style_of(text) == case.wanted
            for case, text in zip(cases, answers, strict=True)
        ]
        self.note("style asked for, greedy", "style given", share(fits), self.cases)

    def longest_that_fits(self, seed: int) -> int:
        """The largest number of rows whose prompt and gold fit the context in every case of the seed."""
        context = self.model.config.max_position_embeddings
        rows = 40
        while rows < 150:
            cases = spreadsheet.generate(seed, 50, (rows + 1, rows + 1))
            if (
                max(
                    len(prompt_ids(self.tokenizer, c.prompt)) + len(self.tokenizer.encode(c.gold).ids) + 1
                    for c in cases
                )
                > context
            ):
                break
            rows += 1
        return rows

    def stress(self, seed: int, sweep_cases: int) -> dict[str, Any]:
        """Row keeping at temperature 1 over table lengths; the stress length; best of 8 there."""
        longest = self.longest_that_fits(seed)
        lengths = [rows for rows in STRESS_LENGTHS if rows <= longest]
        if longest not in lengths:
            lengths.append(longest)
        kept, complete = {}, {}
        for rows in lengths:
            found = [m[0] for m in self.tables(seed, (rows, rows), sweep_cases, 1.0)]
            kept[rows], complete[rows] = (
                mean([m.preservation for m in found]),
                share([m.all_kept for m in found]),
            )
            name = f"{rows} rows, T=1"
            self.note(name, "rows kept (strict, mean share)", kept[rows], sweep_cases)
            self.note(name, "all rows kept", complete[rows], sweep_cases)
            self.note(
                name,
                "unit accuracy (cells of kept rows)",
                mean([m.unit_accuracy for m in found]),
                sweep_cases,
            )
            self.note(name, "rows that belong (precision)", mean([m.precision for m in found]), sweep_cases)
        length, used = choose_stress_length(kept, complete)
        runs = self.tables(seed + 1, (length, length), self.cases, 1.0, BEST_OF)
        name = f"stress length {length} rows, T=1"
        self.note(
            name,
            "rows kept (strict, mean share)",
            mean([float(np.mean([m.preservation for m in ms])) for ms in runs]),
            self.cases,
        )
        self.note(
            name,
            "all rows kept (per sample)",
            mean([float(np.mean([m.all_kept for m in ms])) for ms in runs]),
            self.cases,
        )
        self.note(
            name,
            f"all rows kept in one of {BEST_OF}",
            share([any(m.all_kept for m in ms) for ms in runs]),
            self.cases,
        )
        self.note(
            name,
            "unit accuracy (cells of kept rows)",
            mean([float(np.mean([m.unit_accuracy for m in ms])) for ms in runs]),
            self.cases,
        )
        self.note(
            name,
            "rows that belong (precision)",
            mean([float(np.mean([m.precision for m in ms])) for ms in runs]),
            self.cases,
        )
        greedy = [m[0] for m in self.tables(seed + 1, (length, length), self.cases, 0.0)]
        self.note(
            f"stress length {length} rows, greedy",
            "rows kept (strict, mean share)",
            mean([m.preservation for m in greedy]),
            self.cases,
        )
        self.note(
            f"stress length {length} rows, greedy",
            "all rows kept",
            share([m.all_kept for m in greedy]),
            self.cases,
        )
        return {"stress_length_rows": length, "stress_measure": used, "longest_that_fits_rows": longest}


def choose_stress_length(
    kept: dict[int, tuple[float, float, float]], complete: dict[int, tuple[float, float, float]]
) -> tuple[int, str]:
    """The shortest length inside the window, by share of rows kept, else by share of complete tables.

    When neither falls into the window, the longest length, and the measure says so.
    """
    low, high = STRESS_WINDOW
    for figures, name in (
        (kept, "mean share of rows kept"),
        (complete, "share of tables with all rows kept"),
    ):
        inside = [rows for rows in sorted(figures) if low <= figures[rows][0] <= high]
        if inside:
            return inside[0], name
    return max(kept), "none in the window: the longest length that fits"


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=200, help="fresh cases per figure")
    parser.add_argument("--sweep-cases", type=int, default=100, help="tables per length of the stress sweep")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument(
        "--no-stress", action="store_true", help="leave out the long tables and write nothing"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    began = time.monotonic()
    model = AutoModelForCausalLM.from_pretrained(POCKET).eval()
    library = AutoTokenizer.from_pretrained(POCKET)
    tokenizer = Tokenizer.from_file(str(POCKET / "tokenizer.json"))
    rendered = library.apply_chat_template(
        [{"role": "user", "content": "Hello."}], add_generation_prompt=True, return_dict=False
    )
    if rendered != prompt_ids(tokenizer, "Hello."):
        raise RuntimeError("the measured prompts are not what the chat template writes")
    measurement = Measurement(model, tokenizer, given.cases)
    measurement.cleaning(FIRST_EVALUATION_SEED, 0.0)
    measurement.cleaning(FIRST_EVALUATION_SEED, 1.0)
    measurement.styles(FIRST_EVALUATION_SEED + 10)
    measurement.obedience(FIRST_EVALUATION_SEED + 20)
    if given.no_stress:
        return
    facts = measurement.stress(FIRST_EVALUATION_SEED + 30, given.sweep_cases)
    curve = ROOT / "tools" / "pocket" / "work" / "curve.json"
    learning = json.loads(curve.read_text(encoding="utf-8")) if curve.exists() else []
    write_report(
        "pocket",
        measurement.rows,
        parameters=sum(p.numel() for p in model.parameters()),
        threads=given.threads,
        seconds=round(time.monotonic() - began),
        learning_curve=learning,
        **facts,
    )
    card.main()


if __name__ == "__main__":
    main()
