"""`diagnose`: every rule over one run, and the verdict."""

from __future__ import annotations

from dlm.curves.findings import Diagnosis, Verdict
from dlm.curves.run import CurveRun
from dlm.curves.thresholds import Thresholds

__all__ = ["diagnose"]


def diagnose(run: CurveRun, thresholds: Thresholds | None = None, *, running: bool = False) -> Diagnosis:
    """What the rules say of a run. Pure and deterministic; never raises on a `CurveRun`, whatever its numbers.

    With `running`, the run is still going: rules about how a run ends stay undecided, and so does what they would
    say; every other rule speaks as soon as it has points enough. Calling it again with more points is the way to
    watch a run.
    """
    return Diagnosis(Verdict("unknown", "no rule has looked yet"), running=running)
