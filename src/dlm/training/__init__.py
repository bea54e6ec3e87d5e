"""Training: make a version. Rows become examples, examples become batches, batches move an adapter."""

from dlm.training import checkpoints
from dlm.training.examples import Row, data_hash, read_rows_file, rows_of_document
from dlm.training.loop import LoopResult, Observer, Plan, make_optimizer, require_finite
from dlm.training.phases import (
    Estimate,
    Preflight,
    Prepared,
    add_adapter,
    estimate,
    prepare_sft,
    score_held_out,
    train_sft,
)

__all__ = [
    "Estimate",
    "LoopResult",
    "Observer",
    "Plan",
    "Preflight",
    "Prepared",
    "Row",
    "add_adapter",
    "checkpoints",
    "data_hash",
    "estimate",
    "make_optimizer",
    "prepare_sft",
    "read_rows_file",
    "require_finite",
    "rows_of_document",
    "score_held_out",
    "train_sft",
]
