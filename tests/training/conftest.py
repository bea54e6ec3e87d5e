from __future__ import annotations

import pytest

from dlm.training.examples import Example
from dlm.training.pairs import PairExample
from tiny_training import example, pair_example


@pytest.fixture
def uneven() -> list[Example]:
    """Nine rows of very different lengths, so that a mean of micro-batch means would be wrong."""
    return [example("q" * (1 + i), "answer " * (1 + i * i % 7)) for i in range(9)]


@pytest.fixture
def uneven_pairs() -> list[PairExample]:
    """Nine pairs of very different lengths; the chosen answer is now the longer, now the shorter one."""
    return [
        pair_example("q" * (1 + i), "good " * (1 + i * i % 7), "bad " * (1 + i * 3 % 5), line=i + 1)
        for i in range(9)
    ]
