"""Topic drift: a rejected answer that is about another question, as a template leaks from one task into another.

Such a pair is the easiest of contrasts, so that a model learns "stay on the topic" from it and little of what makes an
answer good. The measure is lexical and light: how much of a question's own words, weighed by how rare they are among all
questions (inverse document frequency, Spärck Jones 1972), an answer takes up. An answer drifts when it takes up next to
nothing of its own question while either the chosen answer takes up much of it, or another question fits the answer much
better. Short answers to short questions take up nothing on both sides, and are left alone.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

__all__ = ["FAR", "MORE_OTHER", "MORE_OWN", "Drift", "Topics"]

FAR: Final = 0.35
"""Share of its question's weight that a drifting answer takes up at most."""
MORE_OWN: Final = 0.25
"""Share by which the chosen answer takes up more of the same question than a drifting answer does, at least; or …"""
MORE_OTHER: Final = 0.4
"""… share by which a drifting answer takes up more of another question than of its own, at least.

The three were chosen on seed 1 of `python bench/drift.py` and are measured on seed 0 (docs/signals.md has the table)."""
MIN_WORDS: Final = 8  # of an answer: shorter ones, "Yes" or a date, are about nothing that words could tell
MIN_SHARED: Final = 2  # words of a question: with fewer it is too short to tell what is about it
COMMON: Final = 200  # questions that share a word, beyond which it does not name one of them

_WORD: Final = re.compile(r"\w{2,}")
_ACCENT: Final = re.compile("[\u0300-\u036f]")
_SUFFIXES: Final = ("ations", "ation", "ings", "ing", "ers", "er", "ies", "ed", "es", "s", "e", "y")
_FUNCTION_WORDS: Final = frozenset(
    [
        "a",
        "about",
        "all",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "may",
        "me",
        "more",
        "most",
        "much",
        "must",
        "my",
        "no",
        "not",
        "of",
        "on",
        "or",
        "our",
        "out",
        "shall",
        "should",
        "so",
        "some",
        "such",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "to",
        "us",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "whom",
        "whose",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)


@dataclass(frozen=True)
class Drift:
    """How an answer lies to its question: shares of the questions' weights that the texts take up, 0 to 1."""

    own: float  # the rejected answer of its question
    chosen: float  # the chosen answer of the same question
    other: float  # the rejected answer of the other question that fits it best
    question: str  # that question, "" where none shares two rare words

    @property
    def drifts(self) -> bool:
        """Whether the rejected answer is about something else."""
        nearer = self.chosen - self.own >= MORE_OWN or self.other - self.own >= MORE_OTHER
        return self.own <= FAR and nearer


class Topics:
    """Every question that a document and its signals have, weighed word by word."""

    def __init__(self, questions: Iterable[str]) -> None:
        self._words: list[tuple[str, frozenset[str]]] = [
            (text, stems(text)) for text in dict.fromkeys(questions)
        ]
        counts = Counter(word for _, words in self._words for word in words)
        n = len(self._words)
        self._weights: Mapping[str, float] = {
            word: math.log((n + 1) / count) for word, count in counts.items()
        }
        self._unknown = math.log(n + 1)  # a word that no question has would be the rarest
        self._asking: dict[str, list[int]] = defaultdict(list)
        for place, (_, words) in enumerate(self._words):
            for word in words:
                if counts[word] <= COMMON:
                    self._asking[word].append(place)

    def __len__(self) -> int:
        return len(self._words)

    def measure(self, prompt: str, chosen: str, rejected: str) -> Drift | None:
        """How a pair's rejected answer lies to its question; None where there are too few words to tell."""
        asked, answer = stems(prompt), stems(rejected)
        if len(_WORD.findall(rejected)) < MIN_WORDS or len(asked) < MIN_SHARED:
            return None
        own = self._share(asked, answer)
        other, question = (0.0, "") if own > FAR else self._nearest(prompt, asked, answer)
        return Drift(own, self._share(asked, stems(chosen)), other, question)

    def _share(self, asked: frozenset[str], answer: frozenset[str]) -> float:
        """The share of a question's weight that an answer takes up."""
        total = sum(map(self._weight, asked))
        return sum(map(self._weight, asked & answer)) / total if total > 0 else 0.0

    def _weight(self, word: str) -> float:
        return self._weights.get(word, self._unknown)

    def _nearest(self, prompt: str, asked: frozenset[str], answer: frozenset[str]) -> tuple[float, str]:
        """The other question that an answer takes up most of, by its share, and about something else than this one."""
        shared: Counter[int] = Counter()
        for word in answer - asked:
            shared.update(self._asking.get(word, ()))
        best, question = 0.0, ""
        for place, count in shared.items():
            text, words = self._words[place]
            if count < MIN_SHARED or text == prompt:
                continue
            share = self._share(words, answer)
            if (
                share > best and self._share(words, asked) <= FAR
            ):  # a question about the same is no other question
                best, question = share, text
        return best, question


def stems(text: str) -> frozenset[str]:
    """The words of a text without case, accents and the commonest English endings, function words left out."""
    folded = text.casefold()
    plain = folded if folded.isascii() else _ACCENT.sub("", unicodedata.normalize("NFKD", folded))
    return frozenset(map(_stem, set(_WORD.findall(plain)) - _FUNCTION_WORDS))


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word
