"""Whether a judge just likes long answers, or short ones.

Reward models and language models reward length (arXiv 2310.03716), and a batch of pairs in which the longer answer nearly
always wins teaches length before anything else. Lengths are characters; scores and lengths are centred on their
question's mean, since questions differ in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["LengthBias", "length_bias"]

EXTREME_SHARE = 0.85
"""The share of pairs in which the longer answer wins (or, below 1 − this, the shorter one) that is warned of."""
EXTREME_CORRELATION = 0.7
"""Of score with length, either sign: half of the score's variance."""
FEWEST_PAIRS, FEWEST_ANSWERS = 8, 16
"""With fewer, chance alone is often extreme: 7 of 8 fair coins fall alike in 7 % of all cases."""


@dataclass(frozen=True)
class LengthBias:
    """Length in a batch.

    Attributes:
        longer_wins: share of pairs whose chosen answer is the longer one, ties counting half; None without pairs.
        pearson, spearman: correlation of score with length within questions; None where one of them never varies.
        pairs, answers: how many there were.
    """

    longer_wins: float | None
    pearson: float | None
    spearman: float | None
    pairs: int
    answers: int

    @property
    def warning(self) -> str:
        """What to tell a person; "" when nothing is extreme."""
        parts = []
        share = self.longer_wins
        if share is not None and self.pairs >= FEWEST_PAIRS:
            if share >= EXTREME_SHARE:
                parts.append(f"the longer answer wins in {share:.0%} of {self.pairs} pairs")
            elif share <= 1 - EXTREME_SHARE:
                parts.append(f"the shorter answer wins in {1 - share:.0%} of {self.pairs} pairs")
        if (
            self.spearman is not None
            and self.answers >= FEWEST_ANSWERS
            and abs(self.spearman) >= EXTREME_CORRELATION
        ):
            parts.append(f"the score follows the length (rank correlation {self.spearman:+.2f})")
        if not parts:
            return ""
        return f"{' and '.join(parts)}: is length what you want to teach? The judge may be the reason"


def length_bias(
    pairs: Sequence[tuple[str, str]], answers: Sequence[Sequence[tuple[str, float]]]
) -> LengthBias:
    """Measure a batch.

    Args:
        pairs: (chosen, rejected) texts.
        answers: for each question its judged answers as (text, score).
    """
    wins = [_win(len(chosen), len(rejected)) for chosen, rejected in pairs]
    lengths, scores = [], []
    for group in answers:
        if len(group) > 1:
            lengths.append(_centred([len(text) for text, _ in group]))
            scores.append(_centred([score for _, score in group]))
    x = np.concatenate(lengths) if lengths else np.empty(0)
    y = np.concatenate(scores) if scores else np.empty(0)
    return LengthBias(
        longer_wins=sum(wins) / len(wins) if wins else None,
        pearson=_correlation(x, y),
        spearman=_correlation(_ranks(x), _ranks(y)),
        pairs=len(pairs),
        answers=sum(len(group) for group in answers),
    )


def _win(chosen: int, rejected: int) -> float:
    return 0.5 if chosen == rejected else float(chosen > rejected)


def _centred(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return np.asarray(array - array.mean())


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing their mean rank."""
    unique, place, count = np.unique(values, return_inverse=True, return_counts=True)
    if len(unique) == 0:
        return values
    return np.asarray((np.cumsum(count) - (count + 1) / 2)[place])


def _correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    if len(x) < 2:
        return None
    x, y = x - x.mean(), y - y.mean()
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return float(np.clip(float(x @ y) / spread, -1, 1)) if spread > 0 else None
