"""What the judge `sway` could score by, measured on the embedded base, whose right answers are known.

For each seed, three documents of 40 questions are learnt with the base's own defaults: one whose answers are all brief, one
whose answers are all padded, and one that mixes styles as the base does. A fourth, `preferred`, is a mixed one with 40 pairs
of a brief and a padded answer, learnt through both phases: its version's parent is no longer the base, and what the judge
says in a second round of the loop is about such a version. Judged are answers to 20 of a document's questions and to 20 new
ones:

    made      right and wrong answers of equal wording, brief and padded: the wrong ones copy another value of the same
              text, or advise on another topic
    sampled   four answers of the version at temperature 1 a question, labelled by the checks of `dlm.tasks.style`

A figure is the share of pairs that a score puts in the right order (ties count half), a mean over questions with a
bootstrap interval over questions. Seeds 0 and 1 were for choosing the score; 2 and 3 check it (of seed 2, the brief document had been seen before). The
threshold was chosen when all of the brief and the mixed ones were known. Of `preferred`, which chose nothing, there are seeds 2
and 3 only.

    python bench/judges.py [--work FOLDER] [--documents brief mixed padded preferred]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from brevity import dlm, pairs_of
from report import write_report

from dlm.bases import resolve_base
from dlm.document import load, new_ulid, render_instruction, render_preference
from dlm.judging import Anchor, Item, JudgeContext, make_judge
from dlm.model import Policy, Settings, completion_logprobs, load_policy, sample
from dlm.recipe import Recipe, resolve
from dlm.stats import mean
from dlm.store import Home
from dlm.tasks import style
from dlm.training import Row, add_adapter, make_optimizer, prepare_sft, train_phase
from dlm.training.checkpoints import Progress

CHOICE_SEEDS, CHECK_SEEDS = (0, 1), (2, 3)
DOCUMENTS = ("brief", "mixed", "padded", "preferred")
ROWS, PAIRS, ASKED, SAMPLES, MOST_TOKENS, FOREIGN = 40, 40, 20, 4, 96, 3
THRESHOLDS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclass
class Answer:
    """An answer to be judged, and what the scores are made from (natural logarithms, sums over tokens)."""

    question: str
    text: str
    source: str  # made, sampled, or anchor
    right: bool
    brief: bool
    kind: str
    tokens: int = 0
    own: float = 0.0  # under the version, after its question
    base: float = 0.0  # under the base
    foreign: float = 0.0  # under the version, after other questions, their mean
    empty: float = 0.0  # under the version, after an empty question
    sway: float = 0.0  # what the judge says of a sampled answer
    parent: float | None = (
        None  # under the version that the preference phase started from; None where that is the base
    )


class Silent:
    """An observer of training that asks for nothing."""

    def metrics(self, step: int, values: Any) -> None: ...
    def before_checkpoint(self) -> None: ...
    def checkpoint_saved(self, step: int) -> None: ...
    def stop_requested(self) -> str:
        return ""


# --- answers ------------------------------------------------------------------------------------------------------


def learn(cases: Sequence[style.StyleCase], answers: Sequence[str], seed: int, folder: Path) -> Policy:
    """A version of a document with these questions and answers."""
    spec = resolve_base("pocket")
    recipe = resolve(Recipe(), spec.defaults, {"seed": seed}).recipe
    policy = load_policy(spec, device="cpu")
    model = add_adapter(policy, recipe)
    rows = [
        Row("chat", case.question, answer, "document", line, False)
        for line, (case, answer) in enumerate(zip(cases, answers, strict=True), 1)
    ]
    prepared = prepare_sft(rows, [], policy, model, recipe)
    train_phase(prepared, model, recipe, make_optimizer(model, recipe), Progress(), Silent(), folder)
    return replace(policy, model=model.eval())


def learn_preferred(
    cases: Sequence[style.StyleCase], answers: Sequence[str], seed: int, folder: Path
) -> tuple[Policy, Policy]:
    """The version of such a document after its preference phase, and the one before."""
    path, home = folder / "preferred.dlm", folder / "home"
    pairs = pairs_of(style.generate(9000 + seed, PAIRS, split="train"))
    turns = [(case.question, text) for case, text in zip(cases, answers, strict=True)]
    header = f"---\ndlm_id: {new_ulid()}\nbase_model: pocket\ntraining:\n  seed: {seed}\n---\n\n"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{header}{render_instruction(turns)}\n{render_preference(pairs)}\n", encoding="utf-8")
    for phase in ("sft", "preference"):
        dlm("train", str(path), "--phase", phase, home=home)
    with Home.open(home).store(load(path).header.dlm_id) as store:
        parent, version = (
            load_policy(resolve_base("pocket"), store.versions.get(name).folder, device="cpu")
            for name in ("v0001", "v0002")
        )
    return version, parent


def made(case: style.StyleCase, all_cases: Sequence[style.StyleCase], draw: random.Random) -> list[Answer]:
    """A right and a wrong answer, brief and padded each; none for a text without another value."""
    other, rival = case, ""
    if case.kind == "fact":
        if not case.rivals:
            return []
        rival = draw.choice(case.rivals)
    else:
        other = draw.choice(
            [one for one in all_cases if one.kind == "advice" and one.subject != case.subject]
        )
    found = []
    for manner in ("brief", "padded"):
        right, wrong = style.answer(case, manner, 1), style.answer(other, manner, 1)
        if rival:
            wrong = re.sub(re.escape(case.value), lambda _: rival, right, flags=re.IGNORECASE)
        for text, is_right in ((right, True), (wrong, False)):
            found.append(Answer(case.question, text, "made", is_right, manner == "brief", case.kind))
    return found


def sampled(policy: Policy, cases: Sequence[style.StyleCase]) -> list[tuple[Answer, tuple[int, ...]]]:
    """Different finished answers of the version, with their labels and ids."""
    asked = [case for case in cases for _ in range(SAMPLES)]
    settings = Settings(temperature=1.0, max_new_tokens=MOST_TOKENS)
    prompts = [policy.chat.prompt_ids(case.question) for case in asked]
    found = {}
    for case, one in zip(asked, sample(policy, prompts, settings, range(len(asked))), strict=True):
        if one.finish_reason == "stop" and one.text.strip():
            right = style.on_topic(case, one.text) and (
                case.kind != "fact" or style.fact_right(case, one.text)
            )
            answer = Answer(case.question, one.text, "sampled", right, style.is_brief(one.text), case.kind)
            found[case.question, one.text] = (answer, one.ids)
    return list(found.values())


def measure(
    policy: Policy,
    parent: Policy | None,
    answers: Sequence[tuple[Answer, tuple[int, ...]]],
    questions: Sequence[str],
) -> None:
    """Fill in the log-probabilities."""

    def sums(pairs: Iterable[tuple[str, tuple[int, ...]]], model: Any = policy.model) -> list[float]:
        rows = [(policy.chat.prompt_ids(question), ids) for question, ids in pairs]
        return [float(tokens.sum()) for tokens in completion_logprobs(model, rows)]

    draw = random.Random(0)
    own = [(answer.question, ids) for answer, ids in answers]
    foreign = [
        (question, ids)
        for answer, ids in answers
        for question in draw.sample([one for one in questions if one != answer.question], FOREIGN)
    ]
    found = sums(own), sums(("", ids) for _, ids in answers), sums(foreign)
    with policy.model.disable_adapter():
        base = sums(own)
    before = sums(own, parent.model) if parent is not None else None
    for place, (answer, ids) in enumerate(answers):
        answer.tokens, answer.own, answer.empty, answer.base = (
            len(ids),
            *(values[place] for values in found[:2]),
            base[place],
        )
        answer.parent = before[place] if before is not None else None
        answer.foreign = fmean(found[2][FOREIGN * place : FOREIGN * (place + 1)])


def cell(kind: str, seed: int, work: Path) -> list[Answer]:
    """All answers of one document, measured; kept in `work`."""
    place = work / f"{kind}-{seed}.json"
    if place.is_file():
        return [Answer(**record) for record in json.loads(place.read_text(encoding="utf-8"))]
    draw = random.Random(f"{kind} {seed}")
    cases = style.generate(1000 + seed, ROWS, split="train")
    names, weights = zip(*style.STYLE_SHARES, strict=True)
    manners = draw.choices(names, weights, k=ROWS) if kind in ("mixed", "preferred") else [kind] * ROWS
    golds = [style.answer(case, manner) for case, manner in zip(cases, manners, strict=True)]
    folder, parent = work / f"{kind}-{seed}", None
    if kind == "preferred":
        policy, parent = learn_preferred(cases, golds, seed, folder)
    else:
        policy = learn(cases, golds, seed, folder)
    asked = [*cases[:ASKED], *style.generate(5000 + seed, ASKED, split="held_out")]
    built = [answer for case in asked for answer in made(case, asked, draw)]
    built += [
        Answer(case.question, gold, "anchor", True, manner == "brief", case.kind)
        for case, gold, manner in zip(cases, golds, manners, strict=True)
    ]
    answers = [(answer, tuple(policy.chat.completion_ids(answer.text))) for answer in built]
    answers += sampled(policy, asked)
    measure(policy, parent, answers, [case.question for case in cases])
    anchors = tuple(Anchor(case.question, gold) for case, gold in zip(cases, golds, strict=True))
    judge = make_judge("sway", JudgeContext(policy=policy, anchors=anchors))
    drawn = [(answer, ids) for answer, ids in answers if answer.source == "sampled"]
    items = [Item(answer.question, answer.text, ids) for answer, ids in drawn]
    for (answer, _), verdict in zip(drawn, judge.score(items), strict=True):
        if verdict.score is None:
            raise SystemExit(f"sway gave no score: {verdict.error}")
        answer.sway = verdict.score
    place.write_text(json.dumps([asdict(answer) for answer, _ in answers]), encoding="utf-8")
    return [answer for answer, _ in answers]


# --- scores -------------------------------------------------------------------------------------------------------

Score = Callable[[Answer], float]


def scores(anchors: Sequence[Answer]) -> dict[str, Score]:
    """Everything that was tried, by name. L is the share of the foreign log-probability that is taken away."""
    moved = [(one.own - one.base) / one.tokens for one in anchors]
    middle, spread = fmean(moved), pstdev(moved)
    usual = fmean(one.tokens for one in anchors)

    def contrast(base: float, share: float) -> Score:
        """The mean of version and base in these parts, less a share of what the answer costs after other questions."""
        return lambda one: ((1 - base) * one.own + base * one.base - share * one.foreign) / one.tokens

    def moved_on(one: Answer) -> float:
        """What the preference phase added to its log-probability, where it is known."""
        return one.own - (one.base if one.parent is None else one.parent)

    against_parent: dict[str, Score] = {
        "against the parent, sum": moved_on,
        "against the parent, mean": lambda one: moved_on(one) / one.tokens,
    }
    return {
        **(against_parent if anchors[0].parent is not None else {}),
        "sum": lambda one: one.own,
        "mean": lambda one: one.own / one.tokens,
        "mean, long answers by the anchors' length": lambda one: one.own / min(one.tokens, usual),
        "base's mean": lambda one: one.base / one.tokens,
        "against the base, sum": lambda one: one.own - one.base,
        "against the base, mean": lambda one: (one.own - one.base) / one.tokens,
        "against the base, distance from the anchors": lambda one: (
            -abs(((one.own - one.base) / one.tokens - middle) / spread)
        ),
        **{
            f"version against other questions, L = {share:g}": contrast(0, share)
            for share in (0.1, 0.2, 0.3, 0.5, 1.0)
        },
        **{
            f"version and base against other questions, L = {share:g}": contrast(0.5, share)
            for share in (0.0, 0.1, 0.2, 0.3, 0.5)
        },
        "version and base against an empty question, L = 0.2": lambda one: (
            (one.own / 2 + one.base / 2 - 0.2 * one.empty) / one.tokens
        ),
        "the judge sway": lambda one: one.sway if one.source == "sampled" else contrast(0.5, 0.2)(one),
    }


def better(first: Answer, second: Answer) -> str:
    """In what the first of two answers to one question is better, other things equal; "" where it is not."""
    if first.source == "made":
        if first.right and not second.right:
            if first.brief == second.brief:
                return f"made: right {first.kind}"
            return "made: right, though padded" if second.brief else ""
        return "made: brief" if first.right and second.right and first.brief and not second.brief else ""
    if first.right and not second.right:
        return "sampled: right"
    return "sampled: brief" if first.right and second.right and first.brief and not second.brief else ""


def by_question(answers: Iterable[Answer]) -> list[list[Answer]]:
    """Answers of the same kind of source to the same question."""
    groups: dict[tuple[str, str], list[Answer]] = {}
    for one in answers:
        if one.source != "anchor":
            groups.setdefault((one.question, one.source), []).append(one)
    return list(groups.values())


def table(cells: Sequence[Sequence[Answer]]) -> list[dict[str, Any]]:
    """Score by score, the share of pairs in the right order in each respect."""
    found: dict[str, dict[str, list[float]]] = {}
    for answers in cells:
        tried = scores([one for one in answers if one.source == "anchor"])
        for group in by_question(answers):
            pairs: dict[str, list[tuple[Answer, Answer]]] = {}
            for first, second in itertools.permutations(group, 2):
                pairs.setdefault(better(first, second), []).append((first, second))
            for respect in pairs.keys() - {""}:
                for name, score in tried.items():
                    marks = [
                        (score(first) > score(second)) + (score(first) == score(second)) / 2
                        for first, second in pairs[respect]
                    ]
                    found.setdefault(name, {}).setdefault(respect, []).append(fmean(marks))
    rows = []
    for name, respects in found.items():
        row: dict[str, Any] = {"score": name}
        for respect in sorted(respects):
            figure = mean(respects[respect])
            row |= {
                respect: round(figure.value, 3),
                f"{respect} 95 %": [round(figure.low, 3), round(figure.high, 3)],
            }
            row |= {f"{respect} n": figure.n}
        rows.append(row)
    return rows


def margins(cells: Sequence[Sequence[Answer]]) -> list[dict[str, Any]]:
    """What the pairs that mining would stage are worth, by the least margin: the best against the worst sample."""
    best_and_worst = []
    for answers in cells:
        for group in by_question(answers):
            if group[0].source == "sampled" and len(group) > 1:
                ranked = sorted(group, key=lambda one: one.sway)
                best_and_worst.append((ranked[-1], ranked[0]))
    rows = []
    for threshold in THRESHOLDS:
        kept = [(best, worst) for best, worst in best_and_worst if best.sway - worst.sway >= threshold]
        decided = [best.right for best, worst in kept if best.right != worst.right]
        brief = [
            best.brief for best, worst in kept if best.right and worst.right and best.brief != worst.brief
        ]
        rows.append(
            {
                "threshold": threshold,
                "pairs": len(kept),
                "of": len(best_and_worst),
                "right in one only": len(decided),
                "right chosen": fmean(decided) if decided else None,
                "brief in one only": len(brief),
                "brief chosen": fmean(brief) if brief else None,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dlm-judges")
    parser.add_argument("--documents", nargs="+", choices=DOCUMENTS, default=list(DOCUMENTS))
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = []
    facts: dict[str, Any] = {"margins": []}
    for kind in arguments.documents:
        parts = {"choice": CHOICE_SEEDS, "check": CHECK_SEEDS}
        for part, seeds in parts.items() if kind != "preferred" else (("check", CHECK_SEEDS),):
            cells = [cell(kind, seed, work) for seed in seeds]
            rows += [{"document": kind, "seeds": part, **row} for row in table(cells)]
            facts["margins"] += [{"document": kind, "seeds": part, **row} for row in margins(cells)]
    write_report("judges", rows, **facts)


if __name__ == "__main__":
    main()
