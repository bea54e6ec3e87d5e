"""`read_curves`: a file of curves, whatever its format.

Formats: OpenAI and Azure result files (CSV), lists of checkpoints and of events (JSON), transformers' and TRL's
`trainer_state.json`, JSON lines, and what `dlm metrics --csv` and `--json` print.
"""

from __future__ import annotations

from pathlib import Path

from dlm.curves.run import CurveRun
from dlm.errors import CurveFileError

__all__ = ["read_curves"]


def read_curves(path: Path | str) -> CurveRun:
    """Read a file of curves; the format is found by its content, never by its name.

    Raises:
        CurveFileError: the file is missing, empty, no known format or damaged; with line and column where there are
            any, what was expected and what to type next.
    """
    raise CurveFileError("no format can be read yet", where=str(path))
