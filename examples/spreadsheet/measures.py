"""What the study's cells measured: means with intervals, differences to the base, and the answers to PROTOCOL.md's sentences.

A cell is what study.py leaves in results/CELL.json. Of every case the files hold the mean over its answers, so that each mean
here is over cases, and each interval a bootstrap that draws cases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from dlm.stats import Estimate, mean, paired_difference

STRICT, PUBLISHED = "spreadsheet:strict", "spreadsheet:published"
PRIMARY = ("stress", "sampled", STRICT, "data_preservation")
GREEDY = ("stress", "greedy", STRICT, "data_preservation")
# "not worse": sampled, strict, adequate budget
KEPT = (
    ("tables", "unit_consistency"),
    ("stress", "unit_consistency"),
    ("tables", "data_preservation"),
    ("tables", "row_precision"),
    ("stress", "row_precision"),
)

# the cells of the protocol: seeds of each arm
PLANNED: Mapping[str, int] = {
    "rft": 3,
    "sft-stress": 3,
    "dpo": 3,
    "sft-collapsed": 3,
    "sft-gentle": 3,
    "sft-half-stress": 3,
    "sft-curriculum": 3,
    "rft-published": 1,
}
# and those on tables of 54 rows
LONGER: Mapping[str, int] = {"rft": 3, "sft-stress": 3, "dpo": 3}
HOUR = 3600

Cell = Mapping[str, Any]
Key = tuple[str, str, str, str]  # suite, sampling, grader, metric


@dataclass(frozen=True)
class Study:
    """All cells that are there, by arm and seed; `base` stands alone."""

    base: Cell
    arms: Mapping[str, Mapping[int, Cell]]

    @classmethod
    def read(cls, folder: Path) -> Study:
        """Raises: FileNotFoundError: the base has not been measured."""
        base = json.loads((folder / "base.json").read_text(encoding="utf-8"))
        arms: dict[str, dict[int, Cell]] = {}
        for path in sorted(folder.glob("*-[0-9].json")):
            arm, _, seed = path.stem.rpartition("-")
            arms.setdefault(arm, {})[int(seed)] = json.loads(path.read_text(encoding="utf-8"))
        return cls(base, arms)

    def mean(self, cells: Sequence[Cell], key: Key) -> Estimate:
        """Over cases, of the cells' mean for each case."""
        return mean(_per_case(cells, key))

    def gain(self, cells: Sequence[Cell], key: Key) -> Estimate:
        """By how much cells are above the base, paired over cases; of several cells their mean for each case."""
        after, before = _per_case(cells, key), _values(self.base, key)
        return paired_difference(_by_case(after), _by_case(before))


def _values(cell: Cell, key: Key) -> list[float]:
    suite, sampling, grader, metric = key
    found: list[float] = cell["answers"][sampling]["suites"][suite][grader]["cases"][metric]
    return found


def _per_case(cells: Sequence[Cell], key: Key) -> list[float]:
    return [fmean(values) for values in zip(*(_values(cell, key) for cell in cells), strict=True)]


def _by_case(values: Sequence[float]) -> dict[int, list[float]]:
    return {number: [value] for number, value in enumerate(values)}


def flag_share(cell: Cell, suite: str, sampling: str, grader: str, flag: str) -> float:
    """Share of a cell's answers with a flag."""
    share: float = cell["answers"][sampling]["suites"][suite][grader]["flags"].get(flag, 0.0)
    return share


def training_seconds(cell: Cell) -> float:
    """CPU seconds of a cell's trainings, start-up and held-out measurements with them.

    Of a training that was killed and went on only the rest is known: there its time by the clock stands in, which one thread
    cannot exceed.
    """
    return sum(
        training["run"]["elapsed_s"] if training["resumed"] else training["cpu_seconds"]
        for training in cell["trainings"]
    )


@dataclass(frozen=True)
class Answer:
    """To one sentence of "What counts as yes": yes, no, could not be told, or not run; and the figures it rests on."""

    sentence: str
    word: str
    figures: str


def answers(study: Study) -> list[Answer]:
    """The six sentences, in the protocol's order; the first for both lengths of RFT, of which either makes the third true."""
    works = {arm: _works(study, arm) for arm in SENTENCES}
    return [
        works["rft"],
        works["rft-long"],
        works["sft-stress"],
        works["dpo"],
        _conclusion({arm: answer.word for arm, answer in works.items()}),
        _budget(study),
        _textbook(study),
        _blind(study),
    ]


def answers_longer(study: Study) -> list[Answer]:
    """The sentences asked of tables of 54 rows: each arm sampled, which counts, and greedily; then what follows."""
    works = {arm: _works(study, arm) for arm in LONGER}
    both = [answer for arm in LONGER for answer in (works[arm], _works(study, arm, GREEDY))]
    return [*both, _conclusion({arm: answer.word for arm, answer in works.items()}), _textbook(study)]


SENTENCES = {
    "rft": "RFT works here: one pass",
    "rft-long": "RFT works here: three passes",
    "sft-stress": "SFT works here",
    "dpo": "DPO works here",
}


def _works(study: Study, arm: str, key: Key = PRIMARY) -> Answer:
    """Whether an arm halves the error by a measure; "not worse" and the hour are asked beside the primary one alone."""
    sentence = SENTENCES[arm] if key == PRIMARY else f"{SENTENCES[arm]}; greedy answers"
    by_seed = study.arms.get(arm, {})
    cells = list(by_seed.values())
    if not cells:
        return Answer(sentence, "not run", "")
    base, after = study.mean([study.base], key), study.mean(cells, key)
    error, left = 1 - base.value, 1 - after.value
    gains = [study.gain([cell], key) for cell in cells]
    surely = sum(gain.low > 0 for gain in gains)
    worse = [
        f"{metric} on {suite} ({gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}])"
        for suite, metric in KEPT
        for gain in [study.gain(cells, (suite, "sampled", STRICT, metric))]
        if gain.high < 0 and key == PRIMARY
    ]
    pooled = study.gain(cells, key)
    seconds = [training_seconds(cell) for cell in cells]
    figures = (
        f"error {error:.4f} → {left:.4f} ({_removed(error, left)}; paired gain, seeds pooled, "
        f"{pooled.value:+.4f} [{pooled.low:+.4f}, {pooled.high:+.4f}]; a halving is {error / 2:.4f}, the base's own interval "
        f"{base.high - base.low:.4f} wide); interval above 0 in {surely} of {len(cells)} seeds"
    )
    if key == PRIMARY:
        figures += f"; worse: {', '.join(worse) or 'nothing'}; {fmean(seconds) / 60:.0f} CPU minutes a run"
    if key == PRIMARY and arm.startswith("rft") and max(seconds) > HOUR:
        worse.append("time")
        figures += f", the longest {max(seconds) / 60:.0f}"
    if len(cells) < 3:
        return Answer(sentence, "not run", f"{len(cells)} of 3 seeds: {figures}")
    if left <= error / 2 and surely >= 2 and not worse:
        return Answer(sentence, "yes", figures)
    wide = base.high - base.low > error / 2 and pooled.high >= 0 and not worse
    return Answer(sentence, "could not be told" if wide else "no", figures)


def _removed(error: float, left: float) -> str:
    return f"{1 - left / error:.0%} removed" if left <= error else f"{left / error - 1:.0%} more"


def _conclusion(words: Mapping[str, str]) -> Answer:
    """Of the three arms whose compute is matched; rft-long, which had three times theirs, is told beside them."""
    sentence = "The study's conclusion holds here: SFT and DPO cannot reach it, RL can"
    others = [words["sft-stress"], words["dpo"]]
    figures = f"RFT {words['rft']}, SFT {others[0]}, DPO {others[1]}"
    if "rft-long" in words:
        figures += f"; RFT with three times their compute {words['rft-long']}"
    if "not run" in (words["rft"], *others):
        return Answer(sentence, "not run", figures)
    if words["rft"] == "yes":
        if "yes" in others:
            return Answer(sentence, "no", figures)
        return Answer(sentence, "yes" if others == ["no", "no"] else "could not be told", figures)
    return Answer(sentence, "no" if "yes" in others else "could not be told", figures)


def _budget(study: Study) -> Answer:
    sentence = "The .25 was the budget"
    ceiling = study.base["gold"]["ceilings"]["stress-starving-published"]["means"]["data_preservation"]
    keys = [
        ("stress-starving", sampling, PUBLISHED, "data_preservation") for sampling in ("greedy", "sampled")
    ]
    arms = {"base": [study.base], **{arm: list(seeds.values()) for arm, seeds in study.arms.items()}}
    name, highest = _highest(study, arms, keys)
    cell, most = _highest(study, {name: [cell] for name, cell in _named(study)}, keys)
    holds = abs(ceiling - 0.3) < 1e-9 and highest <= ceiling + 1e-9
    figures = f"ceiling {ceiling:.3f}; the highest mean of an arm's seeds {highest:.3f} ({name}), of all single runs {most:.3f} ({cell})"
    missing = sum(max(0, count - len(study.arms.get(arm, {}))) for arm, count in PLANNED.items())
    if holds and missing:
        return Answer(
            sentence, "not run", f"{figures}; {missing} of {sum(PLANNED.values())} cells are missing"
        )
    return Answer(sentence, "yes" if holds else "no", figures)


def _highest(study: Study, groups: Mapping[str, Sequence[Cell]], keys: Sequence[Key]) -> tuple[str, float]:
    seen = {
        f"{name}, {key[1]}": study.mean(cells, key).value
        for name, cells in groups.items()
        if cells
        for key in keys
    }
    return max(seen.items(), key=lambda pair: pair[1])


def _named(study: Study) -> list[tuple[str, Cell]]:
    return [("base", study.base)] + [
        (f"{arm}-{seed}", cell) for arm, seeds in study.arms.items() for seed, cell in seeds.items()
    ]


def _textbook(study: Study) -> Answer:
    sentence = "DPO's textbook curve proves nothing"
    cells = study.arms.get("dpo", {})
    if len(cells) < 3:
        return Answer(sentence, "not run", f"{len(cells)} of 3 seeds")
    ends, told = [], []
    for cell in cells.values():
        curves = cell["trainings"][-1]["curves"]
        values = [value for value in curves["rewards/accuracies"][1] if value is not None]
        ends.append(fmean(values[-max(1, len(values) // 10) :]))
        steps, held_out = curves["val_pref_acc"]
        below = [step for step, value in zip(steps, held_out, strict=True) if value < 1]
        told.append(next((step for step in steps if step > max(below, default=0)), steps[-1]))
    figures = (
        f"training accuracy over the last tenth of the steps {', '.join(f'{end:.3f}' for end in ends)}; of the held-out pairs all are "
        f"ranked right from step {', '.join(map(str, told))} on, so that from there it cannot tell checkpoints apart"
    )
    return Answer(sentence, "yes" if min(ends) > 0.95 else "no", figures)


def _blind(study: Study) -> Answer:
    """Where the run did not even raise the score that it was rewarded for, it cannot have been led astray by it."""
    sentence = "A preservation that is blind to surplus rows makes RL over-produce"
    cells = list(study.arms.get("rft-published", {}).values())
    if not cells:
        return Answer(sentence, "not run", "")
    key = ("stress", "sampled", STRICT, "row_precision")
    gain = study.gain(cells, key)
    rewarded = study.gain(cells, ("stress", "sampled", PUBLISHED, "score"))
    before, after = study.mean([study.base], key), study.mean(cells, key)
    figures = (
        f"row_precision on stress {before.value:.4f} → {after.value:.4f} "
        f"({gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]); the score that it was rewarded for "
        f"{rewarded.value:+.4f} [{rewarded.low:+.4f}, {rewarded.high:+.4f}]"
    )
    if gain.high < 0:
        return Answer(sentence, "yes", figures)
    return Answer(sentence, "no" if rewarded.low > 0 else "could not be told", figures)
