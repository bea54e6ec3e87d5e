"""Knobs: where a value comes from, and what is refused."""

from __future__ import annotations

import pytest

from dlm.errors import UsageError
from dlm.recipe import (
    Choice,
    PreferenceRecipe,
    Recipe,
    ResolvedRecipe,
    for_phase,
    parse_assignment,
    resolve,
    resolve_preference,
    resolve_reward,
)

BASE = {
    "learning_rate": Choice(5e-3, "tiny"),
    "min_steps": Choice(120, "short documents"),
    "preference.learning_rate": Choice(1e-3, "tiny"),
    "preference.beta": Choice(0.3, "tiny"),
}


def test_flag_before_header_before_base_before_default() -> None:
    header = Recipe(lora_r=32, learning_rate=1e-3)
    settled = resolve(header, BASE, {"lora_r": "64"})
    assert (settled.recipe.lora_r, settled.origins["lora_r"]) == (64, "flag")
    assert (settled.recipe.learning_rate, settled.origins["learning_rate"]) == (1e-3, "header")
    assert (settled.recipe.min_steps, settled.origins["min_steps"]) == (120, "base: short documents")
    assert (settled.recipe.seed, settled.origins["seed"]) == (42, "default")


def test_a_header_that_states_the_default_value_states_it() -> None:
    assert resolve(Recipe(learning_rate=2e-4), BASE, {}).recipe.learning_rate == 2e-4


@pytest.mark.parametrize(("header", "flags"), [(Recipe(num_epochs=1), {}), (Recipe(), {"num_epochs": 1})])
def test_stated_epochs_are_not_stretched_by_the_base(header: Recipe, flags: dict[str, int]) -> None:
    settled = resolve(header, BASE, flags)
    assert settled.recipe.min_steps == 0
    assert settled.origins["min_steps"] == "num_epochs was stated"
    assert resolve(Recipe(num_epochs=1, min_steps=7), BASE, {}).recipe.min_steps == 7


@pytest.mark.parametrize(
    "assignment",
    ["lora_r=true", "learning_rate=yes", "seed=1:30", "learning_rate=inf", "lora_r=0", "adapter=loha",
     "micro_batch_size=0", "target_modules=q_proj", "val_fraction=nan", "learning_rate=1e39", "optimizer=sgd"],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused_by_name(assignment: str) -> None:
    name, value = parse_assignment(assignment)
    with pytest.raises(UsageError) as fault:
        resolve(Recipe(), {}, {name: value})
    assert name in fault.value.message
    assert fault.value.expected
    assert fault.value.next_step


def test_all_bad_values_are_named_at_once() -> None:
    with pytest.raises(UsageError) as fault:
        resolve(Recipe(), {}, {"lora_r": "x", "seed": "-1"})
    assert "lora_r" in fault.value.message
    assert "seed" in fault.value.message


@pytest.mark.parametrize("text", ["lora_r", "=3", "lora_r=", "lora_rank=3"])
def test_assignments_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError):
        parse_assignment(text)


def test_unset_and_lists() -> None:
    assert parse_assignment("max_steps=null") == ("max_steps", None)
    assert parse_assignment("target_modules=[q_proj, v_proj]") == ("target_modules", ["q_proj", "v_proj"])
    assert (
        resolve(Recipe(), {}, dict([parse_assignment("learning_rate = 2e-4")])).recipe.learning_rate == 2e-4
    )


# --- the knobs of one phase --------------------------------------------------------------------------------------


def test_a_phase_s_knobs_are_settled_alike() -> None:
    flags = {"preference.beta": "0.2", "reward.center": 0.5, "lora_r": 4}
    knobs, origins = resolve_preference({"learning_rate": 2e-5, "beta": 0.7, "method": "simpo"}, BASE, flags)
    assert (knobs.beta, origins["preference.beta"]) == (0.2, "flag")
    assert (knobs.learning_rate, origins["preference.learning_rate"]) == (2e-5, "header")
    assert (knobs.method, knobs.gamma, origins["preference.gamma"]) == (
        "simpo",
        1.0,
        "default of simpo (arXiv 2405.14734)",
    )
    bare, origins = resolve_preference({}, BASE, {})
    assert (bare.learning_rate, origins["preference.learning_rate"]) == (1e-3, "base: tiny")
    assert set(origins) == {f"preference.{name}" for name in PreferenceRecipe.model_fields}
    reward, origins = resolve_reward({}, BASE, flags)
    assert (reward.center, origins["reward.center"]) == (0.5, "flag")


def test_a_phase_brings_its_own_rate_and_epochs() -> None:
    settled = resolve(Recipe(lora_r=32), BASE, {"num_epochs": 9})
    knobs, origins = resolve_preference({"num_epochs": 2}, BASE, {})
    ours = for_phase(settled, "preference", knobs, origins)
    assert (ours.recipe.learning_rate, ours.recipe.num_epochs, ours.recipe.min_steps) == (1e-3, 2, 0)
    assert ours.recipe.lora_r == 32
    assert (settled.recipe.lora_dropout, ours.recipe.lora_dropout) == (0.05, 0.0)
    assert "without noise" in ours.origins["lora_dropout"]
    assert ours.origins["learning_rate"] == "preference.learning_rate, base: tiny"
    assert ours.origins["num_epochs"] == "preference.num_epochs, header"
    assert ours.stated() == {"lora_r": "header", "preference.num_epochs": "header"}
    assert ours.values()["preference.beta"] == 0.3
    assert list(ours.values()) == list(ours.origins)
    stored = ours.to_json()
    again = ResolvedRecipe.from_json(stored, "as the run began")
    assert (again.recipe, again.knobs, again.phase) == (ours.recipe, ours.knobs, "preference")
    assert again.values() == ours.values()
    assert ResolvedRecipe.from_json(settled.to_json(), "then").recipe == settled.recipe


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("preference.betta=0.2", "preference.beta"),
        ("prefrence.beta=0.2", "preference.beta"),
        ("preference.hyperparams.beta=0.2", "preference.beta"),
        ("beta=0.2", "preference.beta"),
        ("center=0", "reward.center"),
        ("reward.centre=0", "reward.center"),
        ("lora_rr=3", "lora_r"),
    ],
)
def test_the_nearest_knob_is_suggested(assignment: str, hint: str) -> None:
    with pytest.raises(UsageError) as fault:
        parse_assignment(assignment)
    assert fault.value.next_step == f"--set {hint}={assignment.partition('=')[2]}"


@pytest.mark.parametrize(
    "assignment", ["preference.beta=0", "preference.method=ppo", "preference.label_smoothing=0.5",
                   "reward.center=-1", "reward.num_epochs=0", "preference.include_mined=maybe"],
)  # fmt: skip
def test_a_phase_s_values_that_do_not_fit_are_refused_by_name(assignment: str) -> None:
    name, value = parse_assignment(assignment)
    settle = resolve_preference if name.startswith("preference") else resolve_reward
    with pytest.raises(UsageError) as fault:
        settle({}, {}, {name: value})
    assert f"{name}:" in fault.value.message
    assert f"{name}=" in fault.value.found


@pytest.mark.parametrize(
    ("method", "named", "unread"),
    [
        ("orpo", "beta", True), ("orpo", "loss_type", True), ("simpo", "reference", True), ("dpo", "gamma", True),
        ("dpo", "beta", False), ("simpo", "beta", False), ("simpo", "gamma", False), ("orpo", "alpha", False),
    ],
)  # fmt: skip
def test_a_flag_that_the_method_does_not_read_is_refused(method: str, named: str, unread: bool) -> None:
    values = {"beta": "0.2", "alpha": "0.2", "gamma": "0.2", "loss_type": "hinge", "reference": "base"}
    flags = {"preference.method": method, f"preference.{named}": values[named]}
    if not unread:
        assert getattr(resolve_preference({}, {}, flags)[0], named) == 0.2
        return
    with pytest.raises(UsageError, match=f"preference.{named}: not read by the method {method}"):
        resolve_preference({}, {}, flags)
    # a header keeps its numbers while methods are tried
    assert resolve_preference({named: values[named]}, {}, {"preference.method": method})[0].method == method


def test_a_bases_weight_of_the_chosen_answers_is_not_added_to_that_of_orpo() -> None:
    base = {"preference.sft_weight": Choice(0.5, "measured with dpo")}
    assert resolve_preference({}, base, {})[0].sft_weight == 0.5
    recipe, origins = resolve_preference({}, base, {"preference.method": "orpo"})
    assert recipe.sft_weight == 0.0
    assert "already" in origins["preference.sft_weight"]
    stated = {"preference.method": "orpo", "preference.sft_weight": 0.25}
    assert resolve_preference({}, base, stated)[0].sft_weight == 0.25


def test_simpo_brings_its_own_scale_and_margin() -> None:
    recipe, origins = resolve_preference({}, {}, {"preference.method": "simpo"})
    assert (recipe.beta, recipe.gamma) == (2.0, 1.0)
    assert "2405.14734" in origins["preference.beta"]
    stated, _ = resolve_preference({"beta": 0.5}, {}, {"preference.method": "simpo"})
    assert (stated.beta, stated.gamma) == (0.5, 1.0)
    assert resolve_preference({}, {}, {})[0].beta == 0.1
