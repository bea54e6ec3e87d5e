"""Training: make a version. Rows become examples, examples become batches, batches move an adapter."""

from dlm.training import checkpoints
from dlm.training.adapters import adapter_to_train, add_adapter, start_adapter
from dlm.training.examples import Row, data_hash, read_rows_file, rows_of_document
from dlm.training.findings import Finding, pair_findings, row_findings, surface_findings
from dlm.training.loop import LoopResult, Observer, Plan, make_optimizer, require_finite
from dlm.training.pair_files import (
    Scalar,
    ScalarCounts,
    pairs_from_scalars,
    read_pairs_file,
    read_scalars_file,
)
from dlm.training.pairs import (
    EncodedPairs,
    Pair,
    PairExample,
    Selection,
    SkippedPair,
    encode_pairs,
    pairs_hash,
    pairs_of_document,
    select_pairs,
    split_pairs,
)
from dlm.training.phases import (
    Estimate,
    answer_held_out,
    estimate,
    first_window,
    score_held_out,
    score_monitors,
    train_phase,
)
from dlm.training.preference import prepare_preference, refuse_without_pairs
from dlm.training.prepared import Preflight, Prepared, Spread, Stored
from dlm.training.prompts import (
    Prompt,
    PromptExample,
    SkippedPrompt,
    prompts_hash,
    refuse_proving_prompts,
)
from dlm.training.reference import ReferenceReport
from dlm.training.reward import add_reward_head, prepare_reward, save_reward_model
from dlm.training.rft import prepare_rft
from dlm.training.rollouts import Validation
from dlm.training.sft import prepare_sft
from dlm.training.sharding import is_sharded, shard
from dlm.training.sharding import wanted as sharding_wanted
from dlm.training.world import World
from dlm.training.world import setup as processes

__all__ = [
    "EncodedPairs",
    "Estimate",
    "Finding",
    "LoopResult",
    "Observer",
    "Pair",
    "PairExample",
    "Plan",
    "Preflight",
    "Prepared",
    "Prompt",
    "PromptExample",
    "ReferenceReport",
    "Row",
    "Scalar",
    "ScalarCounts",
    "Selection",
    "SkippedPair",
    "SkippedPrompt",
    "Spread",
    "Stored",
    "Validation",
    "World",
    "adapter_to_train",
    "add_adapter",
    "add_reward_head",
    "answer_held_out",
    "checkpoints",
    "data_hash",
    "encode_pairs",
    "estimate",
    "first_window",
    "is_sharded",
    "make_optimizer",
    "pair_findings",
    "pairs_from_scalars",
    "pairs_hash",
    "pairs_of_document",
    "prepare_preference",
    "prepare_reward",
    "prepare_rft",
    "prepare_sft",
    "processes",
    "prompts_hash",
    "read_pairs_file",
    "read_rows_file",
    "read_scalars_file",
    "refuse_proving_prompts",
    "refuse_without_pairs",
    "require_finite",
    "row_findings",
    "rows_of_document",
    "save_reward_model",
    "score_held_out",
    "score_monitors",
    "select_pairs",
    "shard",
    "sharding_wanted",
    "split_pairs",
    "start_adapter",
    "surface_findings",
    "train_phase",
]
