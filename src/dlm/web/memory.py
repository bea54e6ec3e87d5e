"""What the server remembers between requests: series, rows and diagnoses that were computed once, and its processes."""

from __future__ import annotations

from dataclasses import dataclass, field

from dlm.web.commands import Trainers
from dlm.web.diagnoses import Diagnoses
from dlm.web.run_rows import RunRows
from dlm.web.series_cache import SeriesCache

__all__ = ["Memory"]


@dataclass
class Memory:
    """One per server, at `app.state.memory`; each part may be asked from any thread."""

    cache: SeriesCache = field(default_factory=SeriesCache)
    diagnoses: Diagnoses = field(default_factory=Diagnoses)
    trainers: Trainers = field(default_factory=Trainers)
    rows: RunRows = field(init=False)

    def __post_init__(self) -> None:
        self.rows = RunRows(self.cache)
