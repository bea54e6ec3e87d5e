from __future__ import annotations

import pytest

from dlm.training.examples import Example
from tiny_training import example


@pytest.fixture
def uneven() -> list[Example]:
    """Nine rows of very different lengths, so that a mean of micro-batch means would be wrong."""
    return [example("q" * (1 + i), "answer " * (1 + i * i % 7)) for i in range(9)]
