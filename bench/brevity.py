"""Does the preference phase teach what its pairs say? Forty brevity pairs in a document, judged on 200 fresh ones.

A document on the embedded base holds 60 questions with answers in mixed styles, 12 probes, and 40 pairs whose chosen answer is
brief and whose rejected one is padded; both are right. `dlm train` runs as a user runs it: `--phase sft`, then
`--phase preference`. Measured on cases that no document holds, before (the SFT version, which is the reference) and after:

    pref_acc    share of 200 fresh pairs whose margin over the reference is above 0; the reference itself is .5 by convention
    words       words per answer to 200 fresh questions, greedy, and to the document's probes
    facts       share of 200 fresh fact questions answered with the right fact, greedy
    on_topic    share of 100 advice questions answered on topic, greedy
    sft_loss    mean token loss on 200 fresh rows in mixed styles

    python bench/brevity.py [--seeds 1 2 3]
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from report import write_report

from dlm.bases import resolve_base
from dlm.document import load, new_ulid, render_instruction, render_preference
from dlm.model import Policy, Settings, load_policy, sample
from dlm.recipe import PreferenceRecipe
from dlm.stats import share
from dlm.store import Home
from dlm.tasks import style
from dlm.training import Pair, Row, encode_pairs
from dlm.training.examples import encode
from dlm.training.layout import Layout, Tree
from dlm.training.objectives import PreferenceObjective, SftObjective
from dlm.training.planning import Plan
from dlm.training.reference import Scorer, compute_reference
from dlm.training.scoring import HeldOut, evaluate

ROWS, PAIRS, PROBES, FRESH = 60, 40, 12, 200
TRAIN_SEED, FRESH_SEED = 500_000, 910_000  # seeds from 900,000 on are in no corpus
KINDS: tuple[style.Kind, ...] = ("fact", "advice")
MAX_TOKENS = 1024
ORIGIN = "generated"


def mixed_answers(cases: Sequence[style.StyleCase], seed: int) -> list[str]:
    """An answer to each case, in styles drawn as the base's own corpus drew them."""
    draw = random.Random(seed)
    names, weights = zip(*style.STYLE_SHARES, strict=True)
    return [style.answer(case, draw.choices(names, weights)[0]) for case in cases]


def pairs_of(cases: Sequence[style.StyleCase]) -> list[tuple[str, str, str]]:
    """(question, brief answer, padded answer); both answers are right."""
    return [(case.question, style.answer(case, "brief"), style.answer(case, "padded")) for case in cases]


def write_document(path: Path, seed: int) -> None:
    """The document of one seed."""
    cases = style.generate(TRAIN_SEED + seed, ROWS + PROBES, KINDS, split="train")
    turns = list(zip([case.question for case in cases], mixed_answers(cases, seed), strict=True))
    pairs = pairs_of(style.generate(TRAIN_SEED + 1000 + seed, PAIRS, KINDS, split="train"))
    header = (
        f"---\ndlm_id: {new_ulid()}\ndlm_version: 15\nbase_model: pocket\ntraining:\n  seed: {seed}\n---\n\n"
    )
    sections = [render_instruction(turns[:ROWS], probes=turns[ROWS:]), render_preference(pairs)]
    path.write_text(header + "\n".join(sections) + "\n", encoding="utf-8")


def dlm(*arguments: str, home: Path) -> None:
    """Run a command as a user does."""
    env = {**os.environ, "DLM_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "dlm", *arguments], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"dlm {' '.join(arguments)} failed:\n{done.stderr}")


class Judge:
    """Fresh cases of one seed, and what a version makes of them."""

    def __init__(self, seed: int, probes: Sequence[str]) -> None:
        self.cases = style.generate(FRESH_SEED + seed, 2 * FRESH, KINDS)
        self.pairs = pairs_of(style.generate(FRESH_SEED + 1000 + seed, FRESH, KINDS))
        rows = style.generate(FRESH_SEED + 2000 + seed, FRESH, KINDS)
        answers = mixed_answers(rows, seed)
        self.rows = [
            Row("chat", case.question, answer, ORIGIN, place)
            for place, (case, answer) in enumerate(zip(rows, answers, strict=True), start=1)
        ]
        self.probes = probes
        self.reference: dict[str, tuple[float, float]] = {}

    def look(self, policy: Policy) -> dict[str, Any]:
        """All measures of one version. The first version looked at is the reference of the next."""
        layout = Layout.of("packed_shared", policy.model, policy.tokenizer.pad_token_id, policy.device.value)
        answers = self._answers(policy, [case.question for case in self.cases])
        facts = [
            style.fact_right(case, answer)
            for case, answer in zip(self.cases, answers, strict=True)
            if case.kind == "fact"
        ]
        topics = [
            style.on_topic(case, answer)
            for case, answer in zip(self.cases, answers, strict=True)
            if case.kind == "advice"
        ]
        examples = encode(self.rows, policy.chat, MAX_TOKENS).examples
        loss = evaluate(policy.model, HeldOut("sft", SftObjective(layout), examples), _plan(examples))
        values = {
            "words": mean(len(answer.split()) for answer in answers),
            "probe_words": mean(len(answer.split()) for answer in self._answers(policy, self.probes)),
            "facts": share(facts),
            "on_topic": share(topics),
            "sft_loss": loss["sft_loss"],
        }
        pairs = [
            Pair(*pair, ORIGIN, place, mined=False, chosen_score=None, rejected_score=None)
            for place, pair in enumerate(self.pairs, start=1)
        ]
        encoded = encode_pairs(pairs, policy.chat, MAX_TOKENS).examples
        if not self.reference:
            scorer = Scorer.of(policy, policy.model, "torch", with_adapter=True)
            known, _ = compute_reference(policy.model, layout, encoded, None, scorer)
            self.reference = dict(known)
        objective = PreferenceObjective(layout, PreferenceRecipe(), self.reference)
        found = evaluate(policy.model, HeldOut("valid", objective, encoded), _plan(encoded))
        right = round(found["val_pref_acc"] * len(encoded) * 2) / 2
        hits = [1.0] * int(right) + [0.5] * (right % 1 > 0) + [0.0] * int(len(encoded) - right)
        return values | {"pref_acc": share(hits), "ties": found["val_pref_ties"]}

    @staticmethod
    def _answers(policy: Policy, questions: Sequence[str]) -> list[str]:
        prompts = [policy.chat.prompt_ids(question) for question in questions]
        settings = Settings(temperature=0.0, max_new_tokens=128)
        return [one.text for one in sample(policy, prompts, settings, [0] * len(prompts))]


def _plan(rows: Sequence[Tree]) -> Plan:
    """Sixteen rows at a time."""
    return Plan(len(rows), 16, 16, 1, 1, 1)


def one_seed(seed: int, folder: Path) -> dict[str, Any]:
    """Train as a user does, then measure both versions."""
    path, home = folder / "brevity.dlm", folder / "home"
    write_document(path, seed)
    dlm("train", str(path), "--phase", "sft", home=home)
    dlm("train", str(path), "--phase", "preference", home=home)
    document = load(path)
    probes = [q.prompt for section in document.sections for q in section.questions if q.probe]
    judge = Judge(seed, probes)
    with Home.open(home).store(document.header.dlm_id) as store:
        before, after = [
            judge.look(load_policy(resolve_base("pocket", None), store.versions.get(name).folder))
            for name in ("v0001", "v0002")
        ]
    return {
        "seed": seed,
        "pref_acc": _shown(after["pref_acc"]),
        "ties": after["ties"],
        "words": f"{before['words']:.1f} → {after['words']:.1f}",
        "probe_words": f"{before['probe_words']:.1f} → {after['probe_words']:.1f}",
        "facts": f"{_shown(before['facts'])} → {_shown(after['facts'])}",
        "on_topic": f"{_shown(before['on_topic'])} → {_shown(after['on_topic'])}",
        "sft_loss": f"{before['sft_loss']:.3f} → {after['sft_loss']:.3f}",
        "sft_loss_rise": after["sft_loss"] / before["sft_loss"] - 1,
        "facts_fall": before["facts"].value - after["facts"].value,
    }


def _shown(estimate: Any) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    seeds = parser.parse_args().seeds
    results = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            results.append(one_seed(seed, Path(folder)))
    write_report(
        "brevity", results, rows_per_document=ROWS, pairs=PAIRS, fresh_pairs=FRESH, fresh_facts=FRESH
    )


if __name__ == "__main__":
    main()
