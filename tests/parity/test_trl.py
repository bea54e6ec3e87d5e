"""This core against TRL 1.16: same weights, same token ids, fp32 on the CPU, plain layout.

What differs on purpose, and how it is compared all the same:

- ORPO's NLL: TRL takes it over prompt and answer, we over the answer (the prompt is given, nobody wants it learnt). Behind
  prompts of one token, which nothing predicts, both are the same: there the whole loss is compared. Behind longer ones
  the odds-ratio term alone is.
- DPO's label smoothing: TRL's `sigmoid` ignores `label_smoothing`. Its `aot` smooths, and sorts log-ratios within a
  batch: with one pair a batch it is the smoothed sigmoid.
- IPO in the paper's form, on sums, is not in TRL; `tests/training/test_pair_losses.py` has it by hand.
- GRPO's KL term: TRL by default multiplies it by the ratio (arXiv 2512.02556); switched off, it is the published one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.big,
    # TRL's arguments switch checkpointing on by default; to switch it off by the old name is deprecated
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),
]

CASES = (
    "sft",
    "dpo sigmoid",
    "dpo sigmoid, smoothed",
    "dpo hinge",
    "dpo ipo",
    "dpo robust",
    "dpo sigmoid + sft",
    "orpo, prompts of one token",
    "orpo, odds-ratio term",
    "simpo",
    "reward",
    "reward, centred",
    "reward, margins",
    "grpo",
    "dapo",
    "dr_grpo",
)


@pytest.fixture(scope="module")
def oracle() -> Any:
    """Loaded when a test needs it: TRL takes seconds to import, and `make quick` only collects this file."""
    return import_module("trl_oracle")


def case(oracle: Any, name: str) -> Any:
    return next(case for case in oracle.CASES if case.name == name)


def test_every_case_is_here(oracle: Any) -> None:
    assert tuple(case.name for case in oracle.CASES) == CASES


@pytest.mark.parametrize("name", CASES)
def test_equal_to_trl(oracle: Any, tmp_path: Path, name: str) -> None:
    """Loss and gradient at steps 1, 10 and 50 of TRL's path; and 50 steps on our own stay beside it."""
    found = oracle.compare(case(oracle, name), tmp_path)
    assert set(found.loss_gap) == {1, 10, 50}
    assert max(found.loss_gap.values()) <= 1e-5, found
    assert max(found.gradient_gap.values()) <= 1e-5, found
    assert max(found.metric_gap.values(), default=0.0) <= 1e-5, found
    assert found.loss[1] != found.loss[50], "nothing was trained"
    assert found.drift_loss <= 1e-4, found
    assert found.drift_weights <= 1e-4, found


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("sft", {"mean_token_accuracy", "entropy"}),
        ("dpo sigmoid", {"rewards/chosen", "rewards/margins", "rewards/accuracies", "logps/rejected"}),
        ("dpo sigmoid + sft", {"mean_token_accuracy"}),
        ("orpo, prompts of one token", {"rewards/margins", "nll_loss", "log_odds_ratio"}),
        ("simpo", {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"}),
        ("reward", {"rewards/margins", "rewards/accuracies"}),
        ("dapo", {"kl", "clip_ratio/low_mean", "clip_ratio/high_mean"}),
    ],
)
def test_metrics_are_compared_too(oracle: Any, tmp_path: Path, name: str, metrics: set[str]) -> None:
    """Bug 15: what is logged is what another program computes of the same step. Steps are large enough that the last
    one has something to log: some tokens predicted right, some ratios clipped."""
    found = oracle.compare(case(oracle, name), tmp_path, steps=(1, 20), learning_rate=1e-2)
    assert metrics <= found.metric_gap.keys()
    assert all(found.metrics[metric] != 0 for metric in metrics), found.metrics
    assert max(found.metric_gap.values()) <= 1e-5


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("dpo sigmoid", {"method": "dpo", "beta": 0.51}),
        ("dpo ipo", {"method": "dpo", "beta": 0.25, "loss_type": "ipo_sum"}),
        ("simpo", {"method": "simpo", "beta": 2.0, "gamma": 0.51}),
        ("orpo, prompts of one token", {"method": "orpo", "alpha": 0.31, "prompt_tokens": (1, 1)}),
    ],
)
def test_a_small_difference_shows(oracle: Any, tmp_path: Path, name: str, knobs: dict[str, Any]) -> None:
    """The comparison itself can fail: a knob that is off by a hundredth is far outside the bound by the first step."""
    wrong = replace(case(oracle, name), ours=partial(oracle.our_preference, **knobs))
    found = oracle.compare(wrong, tmp_path, steps=(1,))
    assert found.gradient_gap[1] > 1e-3
