"""What is loaded: base, adapter, tokenizer and template as one policy; its renderer, sampler and log-probabilities."""

from dlm.model.chat import Chat
from dlm.model.device import choose_device, choose_dtype
from dlm.model.head import TokenScores, can_run_headless, inner_model, score_targets, trunk_states
from dlm.model.logprobs import completion_logprobs, completion_scores
from dlm.model.policy import Policy, load_policy, quiet_libraries
from dlm.model.products import choose_products, matrix_products
from dlm.model.reward import (
    RewardModel,
    inspect_reward_model,
    load_reward_model,
    with_score_head,
    write_reward_facts,
)
from dlm.model.sampler import Sample, Settings, keeps_logits, sample, stream

__all__ = [
    "Chat",
    "Policy",
    "RewardModel",
    "Sample",
    "Settings",
    "TokenScores",
    "can_run_headless",
    "choose_device",
    "choose_dtype",
    "choose_products",
    "completion_logprobs",
    "completion_scores",
    "inner_model",
    "inspect_reward_model",
    "keeps_logits",
    "load_policy",
    "load_reward_model",
    "matrix_products",
    "quiet_libraries",
    "sample",
    "score_targets",
    "stream",
    "trunk_states",
    "with_score_head",
    "write_reward_facts",
]
