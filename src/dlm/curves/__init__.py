"""Pure functions over series of numbers: read curves, diagnose them, choose a checkpoint. No store, no torch."""

from dlm.curves.diagnosis import diagnose, findings_so_far
from dlm.curves.findings import (
    BANDS,
    Band,
    Diagnosis,
    Evidence,
    Final,
    Finding,
    Level,
    RatioPoint,
    Severity,
    Undecided,
    Verdict,
)
from dlm.curves.readers import read_curves
from dlm.curves.rules import RULES, Rule
from dlm.curves.run import ROLES, Checkpoint, CurveRun, Repeats, RunKind, graders_of, with_epochs
from dlm.curves.selection import Candidate, Role, Selection, select
from dlm.curves.series import UNITS, Series, unit_of
from dlm.curves.thresholds import Thresholds
from dlm.errors import CurveFileError

__all__ = [
    "BANDS",
    "ROLES",
    "RULES",
    "UNITS",
    "Band",
    "Candidate",
    "Checkpoint",
    "CurveFileError",
    "CurveRun",
    "Diagnosis",
    "Evidence",
    "Final",
    "Finding",
    "Level",
    "RatioPoint",
    "Repeats",
    "Role",
    "Rule",
    "RunKind",
    "Selection",
    "Series",
    "Severity",
    "Thresholds",
    "Undecided",
    "Verdict",
    "diagnose",
    "findings_so_far",
    "graders_of",
    "read_curves",
    "select",
    "unit_of",
    "with_epochs",
]
