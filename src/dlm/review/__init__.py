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
    put_back,
    reconcile,
    reject,
    reverted_keys,
    trace,
)
from dlm.review.preview import ApplyPreview, FileLine, apply_previewed, file_diff, preview_apply, unified_diff

__all__ = [
    "ApplyPlan",
    "ApplyPreview",
    "ApplyReport",
    "Batch",
    "Decision",
    "DiffPart",
    "Drift",
    "FileLine",
    "LeftOut",
    "Places",
    "RevertReport",
    "Topics",
    "Trace",
    "Written",
    "accept",
    "apply",
    "apply_previewed",
    "batches",
    "carry_out",
    "edit",
    "file_diff",
    "locate",
    "pick",
    "plan_apply",
    "preview_apply",
    "provenance_of",
    "put_back",
    "reconcile",
    "reject",
    "revert",
    "reverted_keys",
    "trace",
    "unified_diff",
    "word_diff",
]
