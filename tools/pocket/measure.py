"""Measure the published pocket on fresh cases, print the table, and write it to `bench/results/pocket.json`.

    python -m tools.pocket.measure [--cases N] [--threads N] [--no-stress]

Seeds start at `FIRST_EVALUATION_SEED`; training saw none of them. Every figure carries a 95 % interval: Wilson
for shares of cases, a percentile bootstrap over cases for means of per-case shares.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bench.report import write_report

from dlm.bases import resolve_base
from dlm.model import Chat, Policy, Sample, Settings, load_policy, sample
from dlm.stats import Estimate, mean, share
from dlm.tasks import spreadsheet, style
from tools.pocket import card
from tools.pocket.corpus import FIRST_EVALUATION_SEED

ROOT = Path(__file__).resolve().parents[2]
# Fine steps past 48 rows, the longest table it was trained on: there it becomes weak.
STRESS_LENGTHS = (15, 25, 40, 45, 50, 52, 54, 56, 60, 70)
STRESS_WINDOW = (0.5, 0.85)
BEST_OF = 8
SAMPLES = 4
# A table row costs at most this many tokens in an answer; the header and the end mark fit in three of them.
ROW_TOKENS = 20


class Tables(NamedTuple):
    """Row matches per case and sample, and the share of answers that the token budget cut off."""

    matches: list[list[spreadsheet.RowMatch]]
    cut_off: Estimate

    def mean_of(self, number: Callable[[spreadsheet.RowMatch], float]) -> Estimate:
        """Mean over cases of a number's mean over samples."""
        return mean([sum(map(number, matches)) / len(matches) for matches in self.matches])


class Measurement:
    """Collects rows of the table while it asks the model."""

    def __init__(self, policy: Policy, cases: int) -> None:
        self.policy = policy
        self.cases = cases
        self.rows: list[dict[str, Any]] = []
        self._chats: dict[str | None, Chat] = {}

    def prompt(self, question: str, system: str | None = None) -> list[int]:
        """The ids of a question as every other path of dlm renders it."""
        if system not in self._chats:
            self._chats[system] = Chat(self.policy.tokenizer, system)
        return self._chats[system].prompt_ids(question)

    def note(self, ability: str, measure: str, figure: Estimate, cases: int, goal: str = "") -> None:
        """Add one line to the table and show it."""
        value, low, high = (round(number, 4) for number in (figure.value, figure.low, figure.high))
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

    def ask(self, prompts: list[list[int]], budget: int, temperature: float = 0.0) -> list[Sample]:
        """One answer per prompt; the seed of an answer is its place in the list."""
        settings = Settings(temperature=temperature, max_new_tokens=budget)
        return sample(self.policy, prompts, settings, range(len(prompts)))

    def texts(self, prompts: list[list[int]], temperature: float = 0.0) -> list[str]:
        """The texts of short answers."""
        return [answer.text for answer in self.ask(prompts, 96, temperature)]

    def tables(
        self, seed: int, rows: tuple[int, int], count: int, temperature: float, samples: int = 1
    ) -> Tables:
        """Clean `count` tables, each `samples` times."""
        cases = spreadsheet.generate(seed, count, rows)
        prompts = [self.prompt(case.prompt) for case in cases for _ in range(samples)]
        answers = self.ask(prompts, (rows[1] + 3) * ROW_TOKENS, temperature)
        matches = [
            [spreadsheet.match_rows(case, answers[at * samples + s].text) for s in range(samples)]
            for at, case in enumerate(cases)
        ]
        return Tables(matches, share([answer.finish_reason == "length" for answer in answers]))

    def note_tables(self, name: str, found: Tables, goals: dict[str, str]) -> tuple[Estimate, Estimate]:
        """The lines that every table measurement has; the share of rows kept and of complete tables."""
        count = len(found.matches)
        kept = found.mean_of(lambda match: match.preservation)
        complete = found.mean_of(lambda match: float(match.all_kept))
        self.note(name, "rows kept (strict, mean share)", kept, count, goals.get("kept", ""))
        self.note(name, "all rows kept", complete, count)
        self.note(
            name,
            "unit accuracy (cells of kept rows)",
            found.mean_of(lambda m: m.unit_accuracy),
            count,
            goals.get("unit", ""),
        )
        self.note(name, "rows that belong (precision)", found.mean_of(lambda m: m.precision), count)
        self.note(name, "cut off by the token budget", found.cut_off, count)
        return kept, complete

    def cleaning(self, seed: int, temperature: float) -> None:
        """The main task at 8–12 rows."""
        name = f"spreadsheet 8–12 rows, {'greedy' if not temperature else 'T=1'}"
        found = self.tables(seed, (8, 12), self.cases, temperature)
        self.note_tables(name, found, {} if temperature else {"kept": ">= .95", "unit": ">= .95"})
        self.note(name, "header right", found.mean_of(lambda m: float(m.header_right)), self.cases)
        self.note(name, "exactly the gold", found.mean_of(lambda m: float(m.exact)), self.cases)

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
            prompts = [self.prompt(case.question) for case in cases]
            greedy = self.texts(prompts)
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
            texts = self.texts([prompt for prompt in prompts for _ in range(SAMPLES)], 1.0)
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
        answers = self.texts([self.prompt(case.question, case.system) for case in cases])
        fits = [
            style.is_brief(text) if case.wanted == "brief" else style.style_of(text) == case.wanted
            for case, text in zip(cases, answers, strict=True)
        ]
        self.note("style asked for, greedy", "style given", share(fits), self.cases)

    def longest_that_fits(self, seed: int) -> int:
        """The largest number of rows whose prompt and gold fit the context in every one of 50 tables."""

        def tokens(case: spreadsheet.SpreadsheetCase) -> int:
            return len(self.prompt(case.prompt)) + len(self.policy.chat.completion_ids(case.gold))

        rows = 40
        while (
            max(map(tokens, spreadsheet.generate(seed, 50, (rows + 1, rows + 1))))
            <= self.policy.context_length
        ):
            rows += 1
        return rows

    def stress(self, seed: int, sweep_cases: int) -> dict[str, Any]:
        """Row keeping at temperature 1 over table lengths; the stress length; best of 8 there."""
        longest = self.longest_that_fits(seed)
        lengths = sorted({*(rows for rows in STRESS_LENGTHS if rows < longest), longest})
        kept, complete = {}, {}
        for rows in lengths:
            found = self.tables(seed, (rows, rows), sweep_cases, 1.0)
            kept[rows], complete[rows] = self.note_tables(f"{rows} rows, T=1", found, {})
        facts: dict[str, Any] = {"longest_that_fits_rows": longest}
        chosen = {"rows kept": shortest_inside(kept), "all rows kept": shortest_inside(complete)}
        for place, (measure, length) in enumerate(chosen.items()):
            facts["stress_length_rows" if not place else "stress_length_complete_tables_rows"] = length
            if length is None:
                continue
            name = f"stress length {length} rows ({measure})"
            runs = self.tables(seed + 1, (length, length), self.cases, 1.0, BEST_OF)
            self.note_tables(f"{name}, T=1", runs, {})
            best = share([any(match.all_kept for match in matches) for matches in runs.matches])
            self.note(f"{name}, T=1", f"all rows kept in one of {BEST_OF}", best, self.cases)
            self.note_tables(f"{name}, greedy", self.tables(seed + 1, (length, length), self.cases, 0.0), {})
        return facts


def shortest_inside(figures: dict[int, Estimate]) -> int | None:
    """The shortest table length whose figure lies in the stress window, with none above the window at any longer length.

    Without the second half, one noisy figure at a short length would pass for the place where the base grows weak.
    """
    low, high = STRESS_WINDOW
    lengths = sorted(figures)
    settled = [
        rows
        for at, rows in enumerate(lengths)
        if all(figures[longer].value <= high for longer in lengths[at:])
    ]
    return next((rows for rows in settled if figures[rows].value >= low), None)


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
    began = time.monotonic()
    measurement = Measurement(load_policy(resolve_base("pocket"), device="cpu"), given.cases)
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
        command="python -m tools.pocket.measure",
        parameters=sum(p.numel() for p in measurement.policy.model.parameters()),
        threads=given.threads,
        seconds=round(time.monotonic() - began),
        learning_curve=learning,
        **facts,
    )
    card.main()


if __name__ == "__main__":
    main()
