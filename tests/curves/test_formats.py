"""Files in the formats that services and trainers document, field by field, and the questions people ask of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dlm.curves import CurveFileError, CurveRun, diagnose, read_curves, select, with_epochs

SFT_HEADER = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,full_valid_loss,full_valid_mean_token_accuracy"
RFT_COLUMNS = (
    "train_mean_reward",
    "full_valid_mean_reward",
    "completion_tokens_mean",
    "reasoning_tokens_mean",
    "mean_unresponsive_rewards",
    "train_sample_parse_error_count",
    "train_other_error_count",
    "scores/graders/score_model/tone/train_reward_mean",
    "scores/graders/score_model/tone/valid_reward_mean",
    "errors/graders/python/rows/train_other_error_count",
)


def written(folder: Path, content: str | dict[str, Any] | list[Any], name: str = "curves") -> CurveRun:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_curves(path)


def points(run: CurveRun, name: str) -> list[tuple[int, float]]:
    one = run.series[name]
    return list(zip(one.steps.tolist(), one.values.tolist(), strict=True))


def checkpoint(step: int, **metrics: float) -> dict[str, Any]:
    """A checkpoint with every documented field."""
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": f"ftckpt_{step}",
        "created_at": 1_700_000_000 + step,
        "fine_tuned_model_checkpoint": f"ft:base:org:suffix:abc:ckpt-step-{step}",
        "fine_tuning_job_id": "ftjob-abc",
        "metrics": {"step": step, **metrics},
        "step_number": step,
    }


def listed(*data: dict[str, Any], has_more: bool = False) -> dict[str, Any]:
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"],
        "last_id": data[-1]["id"],
        "has_more": has_more,
    }


def test_a_supervised_result_file(tmp_path: Path) -> None:
    run = written(
        tmp_path,
        f"{SFT_HEADER}\n1,2.5,0.4,,,,\n2,2.0,0.5,2.1,0.45,,\n3,1.5,0.6,,,1.9,0.5\n4,0.0,1.0,1.8,0.55,,\n",
    )
    assert run.format == "csv"
    assert run.kind == "sft"
    assert run.unknown_columns == ()
    assert run.problems == ()
    assert set(run.series) == set(SFT_HEADER.split(",")[1:])
    assert points(run, "train_loss") == [(1, 2.5), (2, 2.0), (3, 1.5), (4, 0.0)]
    assert points(run, "valid_loss") == [(2, 2.1), (4, 1.8)]
    assert points(run, "full_valid_loss") == [(3, 1.9)]
    assert run.series["valid_loss"].unit == "nats"


@pytest.mark.parametrize("name", ["train_mean_token_accuracy", "train_accuracy"])
def test_both_names_of_the_training_accuracy(tmp_path: Path, name: str) -> None:
    run = written(tmp_path, f"step,train_loss,{name}\n1,2,0.5\n2,1,0.6\n")
    found = run.role("train_accuracy")
    assert found is not None
    assert found.name == name
    assert run.unknown_columns == ()


def test_a_reinforcement_result_file_with_its_graders(tmp_path: Path) -> None:
    rows = [",".join(["step", *RFT_COLUMNS, "house_metric"])]
    rows += [
        f"{step},0.{step},{'0.4' if step % 2 else ''},{100 * step},,0.0,3,0,0.{step},,0,7"
        for step in (1, 2, 3)
    ]
    run = written(tmp_path, "\n".join(rows) + "\n")
    assert run.kind == "rft"
    assert run.unknown_columns == ("house_metric",)  # kept, and reported
    assert points(run, "house_metric") == [(1, 7.0), (2, 7.0), (3, 7.0)]
    assert points(run, "scores/graders/score_model/tone/train_reward_mean") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert points(run, "full_valid_mean_reward") == [(1, 0.4), (3, 0.4)]
    assert "reasoning_tokens_mean" not in run.series  # a column without a point is no series


def test_a_list_of_checkpoints(tmp_path: Path) -> None:
    data = [
        checkpoint(
            30, train_loss=0.5, valid_loss=1.4, full_valid_loss=1.3, full_valid_mean_token_accuracy=0.7
        ),
        checkpoint(
            20, train_loss=0.8, valid_loss=1.0, train_mean_token_accuracy=0.8, valid_mean_token_accuracy=0.75
        ),
        checkpoint(10, train_loss=1.5, valid_loss=1.6),
    ]
    run = written(tmp_path, listed(*data))  # the service lists the newest first
    assert run.format == "openai checkpoints"
    assert run.saved_steps == (10, 20, 30)
    assert run.repeats is None
    assert points(run, "valid_loss") == [(10, 1.6), (20, 1.0), (30, 1.4)]
    for given, read in zip(reversed(data), run.checkpoints, strict=True):
        assert read.step == given["step_number"]
        assert read.id == given["id"]
        assert read.model == given["fine_tuned_model_checkpoint"]
        assert read.job_id == given["fine_tuning_job_id"]
        assert read.created_at == given["created_at"]
        assert dict(read.metrics) == given["metrics"]
    assert run.series["train_loss"].times.tolist() == [1_700_000_010, 1_700_000_020, 1_700_000_030]


def test_the_page_s_question_which_checkpoint_is_best(tmp_path: Path) -> None:
    run = written(
        tmp_path,
        listed(
            checkpoint(10, valid_loss=1.6), checkpoint(20, valid_loss=0.0), checkpoint(30, valid_loss=1.4)
        ),
    )
    best = select(run).best
    assert best is not None
    assert best.checkpoint is not None
    assert (best.step, best.values["valid_loss"]) == (
        20,
        0.0,
    )  # the page's own snippet takes 0 for a missing one
    assert best.checkpoint.model.endswith("ckpt-step-20")


def test_the_page_s_question_is_it_overfit(tmp_path: Path) -> None:
    def of(final: float) -> CurveRun:
        return written(
            tmp_path,
            listed(
                checkpoint(10, valid_loss=2.0),
                checkpoint(20, valid_loss=1.0),
                checkpoint(30, valid_loss=final),
            ),
        )

    found = diagnose(of(1.21)).of("overfit_alarm")
    assert found is not None
    assert found.evidence[0].values == (1.0, 1.21)
    assert diagnose(of(1.2)).of("overfit_alarm") is None


def test_the_page_s_question_rewards_and_tokens_of_every_checkpoint(tmp_path: Path) -> None:
    metrics = {"train_mean_reward": 0.3, "full_valid_mean_reward": 0.25, "completion_tokens_mean": 120.0}
    run = written(tmp_path, listed(checkpoint(10, **metrics), checkpoint(20, train_mean_reward=0.5)))
    assert run.kind == "rft"
    assert [dict(one.metrics) for one in run.checkpoints] == [
        {"step": 10, **metrics},
        {"step": 20, "train_mean_reward": 0.5},
    ]
    assert [one.role for one in select(run).candidates] == ["peak validation reward", "final"]


def test_a_page_of_a_longer_list_says_so(tmp_path: Path) -> None:
    run = written(tmp_path, listed(checkpoint(10, valid_loss=1.0), has_more=True))
    assert any("has_more" in one for one in run.problems)


def test_one_checkpoint_alone_one_a_line_and_one_without_metrics(tmp_path: Path) -> None:
    assert written(tmp_path, checkpoint(10, valid_loss=1.0)).saved_steps == (10,)
    lines = "\n".join(json.dumps(checkpoint(step, valid_loss=1.0)) for step in (10, 20))
    assert written(tmp_path, lines).saved_steps == (10, 20)
    bare = {**checkpoint(20), "metrics": None}
    mixed = written(tmp_path, listed(checkpoint(10, valid_loss=1.0), bare))
    assert mixed.saved_steps == (10, 20)  # not measured yet, but there
    assert written(tmp_path, listed(bare)).saved_steps == (20,)
    with pytest.raises(CurveFileError, match="no checkpoint yet"):
        written(tmp_path, {"object": "list", "data": [], "has_more": False})


def test_a_number_in_thousands_is_not_guessed_at(tmp_path: Path) -> None:
    with pytest.raises(CurveFileError, match="thousands"):
        written(tmp_path, 'step,train_loss,completion_tokens_mean\n1,2.0,"1,300"\n')
    run = written(tmp_path, "step;train_loss\n1;1,300\n")
    assert run.series["train_loss"].values.tolist() == [1.3]


def test_a_nan_beside_a_finite_value_of_its_step_is_an_empty_cell(tmp_path: Path) -> None:
    rows = "".join(f"{i},{2 - i / 100},NaN\n" + ("" if i % 4 else f"{i},NaN,1.5\n") for i in range(1, 41))
    run = written(tmp_path, "step,train_loss,valid_loss\n" + rows)
    assert len(run.series["train_loss"]) == 40
    assert run.repeats is None
    assert all(math.isfinite(one) for one in run.series["train_loss"].values)


def test_epochs_may_be_told_beside_a_file(tmp_path: Path) -> None:
    run = written(tmp_path, "step,train_loss\n1,2.0\n30,1.0\n")
    assert run.epoch_at(30) is None
    assert with_epochs(run, 3).steps_per_epoch == 10
    assert with_epochs(run, None) is run
    told = written(tmp_path, "# num_epochs: 2\nstep,train_loss\n1,2.0\n30,1.0\n")
    assert told.steps_per_epoch == 15
    assert with_epochs(told, 3) is told


def test_events_with_nested_metrics(tmp_path: Path) -> None:
    data = {
        "step": 3,
        "train_mean_reward": 0.4,
        "scores": {"graders": [{"name": "g", "type": "score_model", "train_reward_mean": 0.4}]},
        "errors": {"graders": [{"name": "g", "type": "score_model", "train_other_error_count": 2.0}]},
    }
    event = {"object": "fine_tuning.job.event", "type": "metrics", "created_at": 5, "data": data}
    run = written(
        tmp_path,
        {
            "object": "list",
            "data": [event, {"object": "fine_tuning.job.event", "type": "message", "data": None}],
        },
    )
    assert (run.format, run.kind) == ("openai events", "rft")
    assert points(run, "scores/graders/score_model/g/train_reward_mean") == [(3, 0.4)]
    assert diagnose(run).of("grader_errors") is not None


STATE = {
    "best_global_step": 10,
    "best_metric": 1.9,
    "best_model_checkpoint": "out/checkpoint-10",
    "epoch": 2.0,
    "eval_steps": 10,
    "global_step": 20,
    "is_hyper_param_search": False,
    "log_history": [
        {"epoch": 1.0, "grad_norm": 1.5, "learning_rate": 1e-4, "loss": 2.0, "step": 10},
        {"epoch": 1.0, "eval_loss": 1.9, "eval_runtime": 3.0, "eval_samples_per_second": 9.0, "step": 10},
        {
            "epoch": 2.0,
            "grad_norm": 1.2,
            "learning_rate": 0.0,
            "loss": 1.0,
            "mean_token_accuracy": 0.7,
            "step": 20,
        },
        {"epoch": 2.0, "eval_loss": 2.0, "step": 20},
        {"epoch": 2.0, "step": 20, "total_flos": 1e12, "train_loss": 1.5, "train_runtime": 60.0},
    ],
    "logging_steps": 10,
    "max_steps": 20,
    "num_train_epochs": 2,
    "save_steps": 10,
    "total_flos": 1e12,
    "trial_name": None,
}


def test_a_trainer_state(tmp_path: Path) -> None:
    run = written(tmp_path, json.dumps(STATE, indent=2))
    assert run.format == "trainer_state"
    assert points(run, "loss") == [(10, 2.0), (20, 1.0)]
    assert points(run, "eval_loss") == [(10, 1.9), (20, 2.0)]
    assert (
        "train_loss" not in run.series
    )  # the end's figure is the mean over the run, not a point of the curve
    assert run.stated["mean_train_loss"] == 1.5
    assert (run.planned_steps, run.steps_per_epoch, run.saved_steps) == (20, 10.0, (10, 20))
    assert (run.repeats, run.unknown_columns, run.problems, run.logged_rows) == (None, (), (), 2)
    loss, valid = run.role("train_loss"), run.role("valid_loss")
    assert loss is not None
    assert valid is not None
    assert (loss.name, valid.name) == ("loss", "eval_loss")
    assert select(run).best.step == 10  # type: ignore[union-attr]


def test_a_folder_of_checkpoints_knows_what_was_kept(tmp_path: Path) -> None:
    for step in (5, 15, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-20" / "trainer_state.json").write_text(json.dumps(STATE))
    for named in (tmp_path, tmp_path / "checkpoint-20", tmp_path / "checkpoint-20" / "trainer_state.json"):
        run = read_curves(named)
        assert run.saved_steps == (5, 15, 20)
        assert run.checkpoints[0].model == "checkpoint-5"
    assert select(run).best.saved_step == 5  # type: ignore[union-attr]  # the minimum is at 10


def test_a_share_as_save_steps(tmp_path: Path) -> None:
    assert written(tmp_path, {**STATE, "save_steps": 0.25}).saved_steps == (5, 10, 15, 20)


@pytest.mark.torch
def test_what_transformers_itself_writes(tmp_path: Path) -> None:
    from transformers import TrainerState

    state = TrainerState(global_step=4, max_steps=8, num_train_epochs=2, save_steps=2)
    state.log_history = [{"loss": 2.0, "step": 2, "epoch": 0.5}, {"eval_loss": 1.0, "step": 4, "epoch": 1.0}]
    state.save_to_json(str(tmp_path / "state.json"))
    run = read_curves(tmp_path / "state.json")
    assert (run.planned_steps, run.steps_per_epoch, run.saved_steps) == (8, 4.0, (2, 4))


def test_json_lines_with_facts(tmp_path: Path) -> None:
    run = written(
        tmp_path,
        '{"method": "DPO", "planned_steps": 3, "num_epochs": 3, "saved_steps": [1, 3], "final_loss": 0.4665, "token_accuracy": "87.3%"}\n'
        '{"step": 1, "loss": 2.0, "grader": {"tone": 0.5}}\n'
        '{"step": 2, "loss": NaN, "note": "restarted"}\n'
        '\n{"step": 3, "loss": 0.0, "accuracy_of_mine": null}\n',
    )
    assert (run.format, run.kind, run.method, run.kind_reason) == (
        "jsonl",
        "preference",
        "dpo",
        "it calls itself dpo",
    )
    assert run.stated == {
        "planned_steps": 3.0,
        "num_epochs": 3.0,
        "final_loss": 0.4665,
        "final_token_accuracy": 0.873,
    }
    assert (run.planned_steps, run.steps_per_epoch, run.saved_steps) == (3, 1.0, (1, 3))
    assert [step for step, _ in points(run, "loss")] == [1, 2, 3]
    assert run.unknown_columns == ("grader/tone", "note")
    assert diagnose(run).of("non_finite") is not None


def test_what_dlm_itself_prints(tmp_path: Path) -> None:
    metrics = {
        "train_loss": {"unit": "nats", "steps": [1, 2, 3], "values": [2.0, None, "Infinity"]},
        "epoch": {"steps": [1], "values": [0.5]},
    }
    run = written(
        tmp_path,
        {
            "schema": "x",
            "command": "metrics",
            "data": {"run": {"id": 4, "kind": "sft", "planned_steps": 9}, "metrics": metrics},
        },
    )
    assert (run.format, run.kind, run.planned_steps) == ("dlm metrics", "sft", 9)
    assert run.series["train_loss"].values[2] == float("inf")
    assert diagnose(run).of("non_finite") is not None


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ("loss", "unknown"),
        ("train_mean_token_accuracy", "sft"),
        ("logps/chosen", "preference"),
        ("rewards/accuracies", "reward"),
        ("reward", "rft"),
        ("full_valid_mean_reward", "rft"),
    ],
)
def test_the_kind_is_told_by_the_columns(tmp_path: Path, columns: str, kind: str) -> None:
    run = written(tmp_path, f"step,{columns}\n1,0.5\n2,0.4\n")
    assert run.kind == kind
    assert run.kind_reason


def test_facts_of_a_table_and_names_in_another_case(tmp_path: Path) -> None:
    run = written(
        tmp_path,
        "# method: orpo\n# planned steps: 2\nStep,Train_Loss,train/grad_norm,eval/loss\n1,2,1,3\n2,1,1,2\n",
    )
    assert (run.kind, run.method, run.planned_steps) == ("preference", "orpo", 2)
    assert set(run.series) == {"train_loss", "grad_norm", "eval_loss"}


def test_the_page_s_run_as_a_file_that_a_resume_appended_to(tmp_path: Path) -> None:
    """Called DPO, loss from about 2, 1,938 steps planned, 2,145 rows because 207 steps stand in it twice."""
    facts = {"method": "DPO", "status": "COMPLETE", "steps": 2145, "planned_steps": 1938, "num_epochs": 3}
    lines = [json.dumps({**facts, "final_loss": 0.4665, "token_accuracy": 0.873})]
    for step in [*range(1, 1001), *range(794, 1939)]:
        loss = 0.05 + 1.95 * 0.99**step + (0.01 if step % 2 else -0.01)
        row = {
            "step": step,
            "loss": 0.4665 if step == 1938 else loss,
            "token_accuracy": 0.5 + 0.25 * step / 1938,
        }
        lines.append(
            json.dumps({**row, "grad_norm": 1.0 + 5 * 0.99**step, "learning_rate": 2e-4 * (1 - step / 1938)})
        )
    run = written(tmp_path, "\n".join(lines) + "\n")
    assert (run.kind, run.method, run.planned_steps, run.logged_rows) == ("preference", "dpo", 1938, 2145)
    assert run.repeats is not None
    assert (run.repeats.rows, run.repeats.first, run.repeats.last) == (207, 794, 1000)
    titles = {one.rule: one.title for one in diagnose(run).findings}
    assert titles["first_loss_not_ln2"] == "called DPO, but its first loss is 1.99, not ln 2"
    assert titles["more_steps_than_planned"] == "2145 steps logged of 1938 planned"
    assert "207 steps are logged more than once" in titles["steps_logged_twice"]
    assert "stated_final_differs" in titles
