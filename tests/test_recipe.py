"""Knobs: where a value comes from, and what is refused."""

from __future__ import annotations

import pytest

from dlm.errors import UsageError
from dlm.recipe import Choice, Recipe, parse_assignment, resolve

BASE = {"learning_rate": Choice(5e-3, "tiny"), "min_steps": Choice(120, "short documents")}


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
