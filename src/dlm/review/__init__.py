"""Review of mined pairs: decide about them, write them into the document, take them out again. No torch."""

from dlm.review.applying import (
    ApplyPlan,
    ApplyReport,
    LeftOut,
    RevertReport,
    Written,
    apply,
    carry_out,
    plan_apply,
    revert,
)
from dlm.review.diff import DiffPart, word_diff
from dlm.review.drift import Drift, Topics
from dlm.review.matching import Places, locate, provenance_of
from dlm.review.plan import (
    Batch,
    Decision,
    Trace,
    accept,
    batches,
    edit,
    pick,
    reconcile,
    reject,
    reverted_keys,
    trace,
)

__all__ = [
    "ApplyPlan",
    "ApplyReport",
    "Batch",
    "Decision",
    "DiffPart",
    "Drift",
    "LeftOut",
    "Places",
    "RevertReport",
    "Topics",
    "Trace",
    "Written",
    "accept",
    "apply",
    "batches",
    "carry_out",
    "edit",
    "locate",
    "pick",
    "plan_apply",
    "provenance_of",
    "reconcile",
    "reject",
    "revert",
    "reverted_keys",
    "trace",
    "word_diff",
]
