"""Rounds of answers: whose log-probs they carry, what of them is learnt, and that nothing but the seed draws them."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from bases_on_the_spot import make_base
from dlm.errors import GradingError, TrainingError
from dlm.recipe import Recipe
from dlm.training import make_optimizer, train_phase
from dlm.training.checkpoints import Progress, load_newest, saved_steps, step_folder
from dlm.training.groups import LOGP_DIFFERENCE, cut_groups
from dlm.training.policy_gradient import (
    group_advantages,
    policy_gradient_denominator,
    policy_gradient_loss_sum,
)
from dlm.training.prompts import Prompt
from dlm.training.scoring import means
from phase_runs import make_version, stir, trainable
from rft_runs import KNOBS, PROMPTS, RECIPE, TestGrader, letters, prepared_rft
from tiny_training import Recorder

pytestmark = pytest.mark.torch
VARIANTS = ("grpo", "dapo", "dr_grpo")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def version(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_version(base, tmp_path_factory.mktemp("version"))


def rounds_of(prepared: Any) -> Any:
    assert prepared.rollouts is not None
    return prepared.rollouts


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 0.9), (1.7, 1.0)])
@pytest.mark.parametrize("layout", ["plain", "packed_shared"])
def test_bug_13_an_unchanged_policy_has_ratio_1_at_every_token(
    base: Path, version: Path, temperature: float, top_p: float, layout: str
) -> None:
    """The sampler's log-probs are those that training computes: of logits / T over all tokens, whatever top_p left out."""
    recipe = RECIPE.model_copy(update={"layout": layout})
    prepared, _, model = prepared_rft(
        base, version=version, recipe=recipe, temperature=temperature, top_p=top_p
    )
    found = rounds_of(prepared).round(model, prepared.train[:3], 1, watched=True)
    scores = prepared.objective.layout.scores(model, found.rows, temperature=temperature)
    sampled = torch.tensor([x for row in found.rows for answer in row.logprobs for x in answer])
    assert len(sampled) > 20
    assert (torch.exp(scores.logprobs - sampled) - 1).abs().max() < 1e-4  # these weights make logits of ±10
    outcome = prepared.objective.forward(model, found.rows)
    assert float(outcome.sums["tokens"][LOGP_DIFFERENCE]) / len(sampled) < 2e-5
    assert abs(float(outcome.sums["tokens"]["kl"])) < 1e-6  # the start is where it stands


def test_ids_are_those_sampled_and_end_as_the_model_ended(base: Path) -> None:
    """Text that is encoded anew may come out as other tokens: of random weights it nearly always does."""
    prepared, policy, model = prepared_rft(base)
    found = rounds_of(prepared).round(model, prepared.train[:3], 1, watched=False)
    again = [
        policy.chat.completion_ids(policy.chat.decode(ids)) == list(ids)
        for row in found.rows
        for ids in row.branches
    ]
    assert not all(again)
    for row in found.rows:
        assert all(
            len(ids) == len(logprobs) for ids, logprobs in zip(row.branches, row.logprobs, strict=True)
        )


def test_an_answer_is_drawn_by_seed_step_prompt_and_place_alone(base: Path) -> None:
    prepared, _, model = prepared_rft(base, grader=TestGrader(letters))
    rollouts = rounds_of(prepared)

    def answers(prompts: Any, step: int) -> dict[str, tuple[tuple[int, ...], ...]]:
        return {row.row.key: row.branches for row in rollouts.round(model, prompts, step, watched=False).rows}

    first = answers(prepared.train[:3], 1)
    assert answers(prepared.train[:3], 1) == first
    alone = answers(prepared.train[:1], 1)
    assert all(first[key] == branches for key, branches in alone.items())  # whoever is asked beside it
    later = answers(prepared.train[:3], 2)
    assert all(first[key] != later[key] for key in first.keys() & later.keys())
    other, _, _ = prepared_rft(base, recipe=RECIPE.model_copy(update={"seed": 7}))
    assert all(
        row.branches != first.get(row.row.key)
        for row in rounds_of(other).round(model, prepared.train[:3], 1, watched=False).rows
    )


@pytest.mark.parametrize("loss_type", VARIANTS)
def test_groups_without_spread_are_left_out_and_the_loss_is_that_of_all(base: Path, loss_type: Any) -> None:
    """Skipping them saves work and changes nothing: their advantages are 0, and they count in the denominator."""
    calls = Counter[str]()

    def equal_for_one(item: Any) -> float:
        calls[item.prompt] += 1
        return 0.25 if item.prompt == PROMPTS[0].text else (calls[item.prompt] % 3) / 2

    prepared, _, model = prepared_rft(
        base, grader=TestGrader(equal_for_one), loss_type=loss_type, kl_beta=0.0, prompts=PROMPTS[:3]
    )
    rollouts = rounds_of(prepared)
    found = rollouts.round(model, prepared.train, 1, watched=False)
    assert found.values["skipped_groups"] == 1
    assert len({row.row.key for row in found.rows}) == 2
    assert found.values["train_answers"] == 12
    stir(model, 0.05)  # so that ratios are not 1
    counts = prepared.objective.counts(found.rows)
    loss = means(prepared.objective.forward(model, found.rows), counts)["loss"]

    lengths, everything = [len(ids) for row in found.rows for ids in row.branches], found.rows
    whole = found.rows[0].denominator
    missing = {"grpo": 4, "dapo": None, "dr_grpo": 4 * KNOBS["max_new_tokens"]}[loss_type]
    seen = policy_gradient_denominator(lengths, loss_type, max_length=KNOBS["max_new_tokens"])
    assert whole > seen if missing is None else whole == seen + missing
    scores = prepared.objective.layout.scores(model, everything)
    expected = policy_gradient_loss_sum(
        scores.logprobs,
        torch.tensor([x for row in everything for one in row.logprobs for x in one]),
        torch.tensor([x for row in everything for x in row.advantages]),
        scores.lengths,
        loss_type=loss_type,
        clip_low=0.2,
        clip_high=0.28,
    )
    assert float(loss.detach()) == pytest.approx(float(expected.loss_sum.detach()) / whole, abs=1e-6)


def test_advantages_are_those_of_the_group(base: Path) -> None:
    grader = TestGrader(letters)
    prepared, _, model = prepared_rft(base, grader=grader)
    found = rounds_of(prepared).round(model, prepared.train[:3], 1, watched=False)
    by_prompt: dict[str, list[float]] = {}
    for item in grader.items:
        by_prompt.setdefault(item.prompt, []).append(letters(item))
    for row in found.rows:
        expected = group_advantages(torch.tensor([by_prompt[row.row.text]]))[0]
        assert torch.allclose(torch.tensor(row.advantages), expected)
    everything = [reward for rewards in by_prompt.values() for reward in rewards]
    assert found.values["train_mean_reward"] == pytest.approx(sum(everything) / 12)
    assert [item.reference for item in grader.items[:4]] == [prepared.train[0].row.reference] * 4


def test_what_the_grader_failed_on_is_counted_and_not_learnt(base: Path) -> None:
    seen = Counter[str]()

    def fails_first(item: Any) -> float | None:
        seen[item.prompt] += 1
        return None if seen[item.prompt] == 1 else letters(item)

    prepared, _, model = prepared_rft(base, grader=TestGrader(fails_first), max_grader_error_share=0.5)
    found = rounds_of(prepared).round(model, prepared.train[:3], 1, watched=False)
    assert found.values["train_other_error_count"] == 3
    assert found.values["errors/graders/test/letters/train_error_count"] == 3
    assert all(len(row.branches) == 3 for row in found.rows)
    assert found.rows[0].denominator == 9


def test_too_many_failures_of_the_grader_stop_the_run_with_the_reason(base: Path, tmp_path: Path) -> None:
    prepared, _, model = prepared_rft(base, grader=TestGrader(lambda item: None), max_grader_error_share=0.2)
    with pytest.raises(GradingError, match=r"failed on \d+ of \d+ answers") as raised:
        train_phase(prepared, model, RECIPE, make_optimizer(model, RECIPE), Progress(), Recorder(), tmp_path)
    assert "it failed" in raised.value.found


def test_no_more_answers_are_graded_than_it_takes_to_know_that_the_grader_fails(base: Path) -> None:
    """One that hangs takes its seconds for each of a step's answers."""
    failing = TestGrader(lambda item: None)
    prepared, _, model = prepared_rft(base, grader=failing, max_grader_error_share=0.2)
    with pytest.raises(GradingError, match="failed on 5 of 5 answers"):
        rounds_of(prepared).round(model, prepared.train[:5], 1, watched=False)  # 20 answers: four may fail
    assert len(failing.items) == 5


def test_a_run_of_few_answers_is_judged_when_it_ends(base: Path, tmp_path: Path) -> None:
    """Twelve answers are fewer than a share means anything of while a run goes on."""
    failing = TestGrader(lambda item: None)
    prepared, _, model = prepared_rft(base, prompts=PROMPTS[:12], grader=failing, steps=1)
    with pytest.raises(GradingError, match="failed on 12 of 12 answers") as raised:
        train_phase(prepared, model, RECIPE, make_optimizer(model, RECIPE), Progress(), Recorder(), tmp_path)
    assert "it failed" in raised.value.found
    assert saved_steps(tmp_path) == []


def test_a_run_that_goes_on_has_the_errors_it_had(base: Path, tmp_path: Path) -> None:
    """11 of 24 answers by step 2 are within one half; with 8 of the 12 of step 3 they are not, and no more are graded."""

    def stops_at(grader: TestGrader, **more: Any) -> str:
        with pytest.raises(GradingError) as raised:
            run(base, tmp_path / "parts", Recorder(), prompts=PROMPTS[:12], grader=grader, **knobs, **more)
        return str(raised.value)

    def failing_from(answered: int) -> TestGrader:
        numbers = count(answered)
        return TestGrader(lambda item: None if (n := next(numbers)) < 11 or 24 <= n < 32 else letters(item))

    knobs: dict[str, Any] = {"max_grader_error_share": 0.5}
    whole = stops_at(failing_from(0))
    assert "failed on 19 of 32 answers" in whole
    assert saved_steps(tmp_path / "parts") == [2]
    assert stops_at(failing_from(24), resume=True) == whole


def test_truncated_answers_can_be_kept_out_of_the_loss(base: Path) -> None:
    """Random weights seldom stop by themselves within 12 tokens."""
    whole, _, model = prepared_rft(base)
    masked, _, _ = prepared_rft(base, mask_truncated=True)
    with_all = rounds_of(whole).round(model, whole.train[:3], 1, watched=False)
    without = rounds_of(masked).round(model, masked.train[:3], 1, watched=False)
    cut_off = with_all.values["train_truncated_count"]
    assert cut_off >= 8
    assert sum(len(row.branches) for row in without.rows) <= 12 - cut_off
    assert without.values["train_mean_reward"] == with_all.values["train_mean_reward"]
    assert all(len(ids) < 12 for row in without.rows for ids in row.branches)


def test_cutting_groups_to_fit_memory_changes_nothing(base: Path, version: Path) -> None:
    prepared, _, model = prepared_rft(base, version=version, kl_beta=0.1)
    found = rounds_of(prepared).round(model, prepared.train[:3], 1, watched=True)
    stir(model, 0.02)
    objective = replace(prepared.objective, layout=replace(prepared.objective.layout, name="packed_shared"))  # type: ignore[type-var]

    def result(rows: Any) -> tuple[float, torch.Tensor]:
        outcome = means(objective.forward(model, rows), objective.counts(rows))
        outcome["loss"].backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        model.zero_grad(set_to_none=True)
        return float(outcome["loss"].detach()), grads

    pieces = cut_groups(found.rows, objective.layout, 30)
    assert len(pieces) > len(found.rows)
    assert all(objective.layout.positions([one]) <= 30 or len(one.branches) == 1 for one in pieces)
    (loss, grads), (other, others) = result(found.rows), result(pieces)
    assert loss == pytest.approx(other, abs=1e-6)
    assert torch.allclose(grads, others, atol=1e-5)


def test_the_divergence_is_from_where_the_run_started(base: Path, version: Path) -> None:
    """Log-probs under the start's weights, by hand; the weights of now come back bit for bit."""
    prepared, _, model = prepared_rft(base, version=version, kl_beta=0.1)
    layout, rollouts = prepared.objective.layout, rounds_of(prepared)
    first = rollouts.round(model, prepared.train[:3], 1, watched=False).rows
    with torch.no_grad():
        at_start = layout.scores(model, first).logprobs
    moved = trainable(stir(model, 0.1))
    redone = rollouts._with_reference(model, [replace(row, reference=None) for row in first])
    assert all(torch.equal(moved[name], tensor) for name, tensor in trainable(model).items())
    known = torch.tensor([x for row in redone for one in (row.reference or ()) for x in one])
    assert torch.allclose(known, at_start, atol=1e-6)
    now = layout.scores(model, redone).logprobs
    expected = (torch.exp(known - now) - (known - now) - 1).sum()
    outcome = prepared.objective.forward(model, redone)
    assert float(outcome.sums["tokens"]["kl"]) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert float(expected.detach()) > 0.1


def test_held_out_prompts_are_answered_with_the_same_noise_every_time(base: Path) -> None:
    prepared, _, model = prepared_rft(base, recipe=RECIPE.model_copy(update={"val_fraction": 0.4}))
    rollouts = rounds_of(prepared)
    assert len(prepared.validation) > 3
    first = rollouts.validate(model)
    assert rollouts.validate(model) == first
    assert set(first.rewards) == {one.row.key for one in prepared.validation}
    known = [reward for reward in first.rewards.values() if reward is not None]
    assert first.values["full_valid_mean_reward"] == pytest.approx(sum(known) / len(known))
    trained_on = {one.row.key for one in prepared.train}
    assert not trained_on & set(first.rewards)
    stir(model, 0.3)
    assert rollouts.validate(model) != first


def run(base: Path, folder: Path, recorder: Recorder, *, resume: bool = False, **knobs: Any) -> Any:
    prepared, _, model = prepared_rft(base, **knobs)
    optimizer = make_optimizer(model, RECIPE)
    progress = load_newest(folder, model, optimizer, pytest.fail) if resume else Progress()
    result = train_phase(prepared, model, RECIPE, optimizer, progress, recorder, folder)
    return model, result


def of_the_policy(history: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    """Metrics without those of time and memory."""
    clock = ("_s", "tokens_per_second", "peak_memory_mb")
    return {
        step: {name: value for name, value in values.items() if not name.endswith(clock)}
        for step, values in history.items()
    }


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_bug_12_a_run_that_goes_on_takes_the_steps_it_would_have_taken(
    base: Path, version: Path, tmp_path: Path, stop_after: int
) -> None:
    knobs: dict[str, Any] = {"version": version, "updates": 2, "kl_beta": 0.05}
    whole = Recorder()
    expected, _ = run(base, tmp_path / "whole", whole, **knobs)
    first = Recorder(stop_after=stop_after)
    run(base, tmp_path / "parts", first, **knobs)
    rest = Recorder()
    found, result = run(base, tmp_path / "parts", rest, resume=True, **knobs)
    assert result.progress.step == 4
    for name, tensor in trainable(expected).items():
        assert torch.equal(trainable(found)[name], tensor), name
    assert of_the_policy({**first.history, **rest.history}) == of_the_policy(whole.history)
    ends = [
        json.loads((step_folder(tmp_path / one, 4) / "progress.json").read_text())
        for one in ("whole", "parts")
    ]
    assert ends[0] | {"elapsed_s": 0} == ends[1] | {"elapsed_s": 0}
    assert ends[0]["graded"] > 4 * 12  # held-out prompts are answered, too


def test_several_updates_move_the_ratio_and_clip(base: Path, tmp_path: Path) -> None:
    one, many = Recorder(), Recorder()
    run(base, tmp_path / "one", one, clip_low=0.01, clip_high=0.01)
    run(base, tmp_path / "many", many, updates=4, clip_low=0.01, clip_high=0.01)
    assert all(
        values["clip_ratio/low_mean"] == 0 == values["clip_ratio/high_mean"]
        for values in one.history.values()
    )
    assert max(values["clip_ratio/low_mean"] for values in many.history.values()) > 0
    assert all(values[LOGP_DIFFERENCE] < 1e-5 for values in many.history.values())  # of the first update


def test_a_reward_of_the_policys_own_words_rises(base: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    run(base, tmp_path, recorder, steps=25, prompts_per_step=4, group_size=8)
    rewards = [values["train_mean_reward"] for values in recorder.history.values()]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.1


def test_a_round_without_any_spread_updates_nothing(base: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    prepared, _, model = prepared_rft(base, grader=TestGrader(lambda item: 0.5))
    before = trainable(model)
    train_phase(prepared, model, RECIPE, make_optimizer(model, RECIPE), Progress(), recorder, tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in trainable(model).items())
    assert all("train_loss" not in values for values in recorder.history.values())
    assert recorder.history[4]["skipped_groups"] == 3
    assert len(recorder.saved) == 2  # and the checkpoint can be read
    assert load_newest(tmp_path, model, make_optimizer(model, RECIPE), pytest.fail).step == 4


def test_prompts_that_leave_no_room_are_listed_or_refuse_the_run(base: Path) -> None:
    long = Prompt("word " * 400, "prompts.jsonl", 99)
    prepared, _, _ = prepared_rft(base, prompts=[*PROMPTS, long, replace(PROMPTS[0], line=100)])
    kinds = {(one.row.line, one.kind) for one in prepared.preflight.skipped}
    assert kinds == {(99, "too_long"), (100, "duplicate")}
    with pytest.raises(TrainingError, match="no prompt leaves room"):
        prepared_rft(base, prompts=[long])


def test_what_cannot_be_reached_within_the_budget_is_said(base: Path) -> None:
    prepared, _, _ = prepared_rft(base, max_new_tokens=3, recipe=Recipe(layout="plain"))
    assert any("longer than 3 tokens" in note for note in prepared.preflight.notes)
    assert math.isclose(prepared.plan.epoch_at(4), 4 / prepared.plan.steps_per_epoch)


def test_an_answer_ends_where_a_row_may(base: Path) -> None:
    """`sequence_len` holds for prompt and answer together."""
    prepared, _, model = prepared_rft(
        base, recipe=RECIPE.model_copy(update={"sequence_len": 64}), max_new_tokens=200
    )
    found = rounds_of(prepared).round(model, prepared.train[:3], 1, watched=False)
    assert found.values["train_truncated_count"] > 0
    assert all(len(row.prompt) + max(map(len, row.branches)) <= 64 for row in found.rows)
    assert any("leave less room than that within 64 tokens" in note for note in prepared.preflight.notes)
