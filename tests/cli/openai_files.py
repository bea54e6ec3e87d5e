"""Files in the shapes that OpenAI's fine-tuning hands out: a supervised and a reinforcement job's results, checkpoints."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

SFT_COLUMNS = (
    "step",
    "train_loss",
    "train_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)


def sft_results() -> str:
    """A run of 120 steps in three epochs; validated every ten; it turns after step 60 and ends at 1.6 of its best."""
    rows = []
    for step in range(1, 121):
        row: dict[str, Any] = {"step": step, "train_loss": round(1.8 * 0.97**step + 0.02 * (step % 3), 5)}
        row["train_accuracy"] = round(1 - 0.5 * 0.98**step, 5)
        if step % 10 == 0:
            row["valid_loss"] = round(0.9 + abs(step - 60) * (0.015 if step < 60 else 0.009), 5)
            row["valid_mean_token_accuracy"] = 0.7
        if step % 40 == 0:
            row["full_valid_loss"] = row["valid_loss"]
            row["full_valid_mean_token_accuracy"] = 0.71
        rows.append(row)
    return as_csv(SFT_COLUMNS, rows)


RFT_COLUMNS = (
    "step",
    "train_mean_reward",
    "full_valid_mean_reward",
    "completion_tokens_mean",
    "reasoning_tokens_mean",
    "mean_unresponsive_rewards",
    "train_sample_parse_error_count",
    "train_other_error_count",
    "scores/graders/python/rows/train_reward_mean",
)


def rft_results() -> str:
    """A reinforcement job: the reward climbs, held-out reward lags by .15 at the end, answers grow to 3.4 times."""
    rows = []
    for step in range(1, 81):
        reward = 0.2 + 0.6 * step / 80
        row: dict[str, Any] = {
            "step": step,
            "train_mean_reward": round(reward + 0.01 * (step % 2), 5),
            "completion_tokens_mean": round(100 * (1 + 2.4 * step / 80), 2),
            "reasoning_tokens_mean": 50,
            "mean_unresponsive_rewards": 0.0,
            "train_sample_parse_error_count": 0,
            "train_other_error_count": 2 if step == 40 else 0,
            "scores/graders/python/rows/train_reward_mean": round(reward, 5),
        }
        if step % 10 == 0:
            row["full_valid_mean_reward"] = round(0.2 + 0.45 * step / 80, 5)
        rows.append(row)
    return as_csv(RFT_COLUMNS, rows)


def as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def checkpoint(step: int, **metrics: float | None) -> dict[str, Any]:
    """A `fine_tuning.job.checkpoint` object; metrics that were not measured are null, as the client writes them."""
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": f"ftckpt_{step:024d}",
        "created_at": 1_760_000_000 + step,
        "fine_tuned_model_checkpoint": f"ft:model:org::abc:ckpt-step-{step}",
        "fine_tuning_job_id": "ftjob-abc",
        "metrics": {"step": step, **metrics},
        "step_number": step,
    }


def checkpoint_page(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The list object, the newest first as the API hands it out."""
    data = sorted(items, key=lambda item: -item["step_number"])
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"],
        "last_id": data[-1]["id"],
        "has_more": False,
    }


def sft_checkpoints() -> dict[str, Any]:
    """Three checkpoints of a supervised job, the middle one the best; it ends at 1.4 of that."""
    return checkpoint_page(
        [
            checkpoint(
                100, train_loss=1.1, valid_loss=1.2, full_valid_loss=1.21, train_mean_token_accuracy=0.6
            ),
            checkpoint(
                200, train_loss=0.6, valid_loss=1.0, full_valid_loss=0.99, train_mean_token_accuracy=0.7
            ),
            checkpoint(
                300, train_loss=0.2, valid_loss=1.4, full_valid_loss=None, train_mean_token_accuracy=0.9
            ),
        ]
    )


def rft_checkpoints() -> dict[str, Any]:
    """Four checkpoints of a reinforcement job; of the first nothing was validated."""
    return checkpoint_page(
        [
            checkpoint(10, train_mean_reward=0.25, full_valid_mean_reward=None, completion_tokens_mean=101.2),
            checkpoint(20, train_mean_reward=0.41, full_valid_mean_reward=0.38, completion_tokens_mean=140.0),
            checkpoint(30, train_mean_reward=0.56, full_valid_mean_reward=0.52, completion_tokens_mean=163.9),
            checkpoint(40, train_mean_reward=0.6, full_valid_mean_reward=0.5, completion_tokens_mean=201.0),
        ]
    )


def dumps(value: Any) -> str:
    return json.dumps(value)
