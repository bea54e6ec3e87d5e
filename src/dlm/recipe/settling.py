"""Where each knob's value comes from: the first of a flag, the header, the base's own default, the default of the knob."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from dlm.errors import UsageError
from dlm.recipe.knobs import (
    PHASE_KNOBS,
    Choice,
    PhaseKnobs,
    PreferenceRecipe,
    Recipe,
    RewardRecipe,
    RftRecipe,
)

__all__ = [
    "ResolvedRecipe",
    "for_phase",
    "knob_names",
    "nearest",
    "parse_assignment",
    "resolve",
    "resolve_preference",
    "resolve_reward",
    "resolve_rft",
]

M = TypeVar("M", bound=BaseModel)

_READ_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "beta": ("dpo", "simpo"),
    "loss_type": ("dpo",),
    "reference": ("dpo",),
    "alpha": ("orpo",),
    "gamma": ("simpo",),
}  # knobs of the preference phase that some methods alone read; a header may state them for any
_REPLACED: Final = ("learning_rate", "num_epochs")  # knobs of `Recipe` whose value a phase brings itself
_STATED: Final = ("flag", "header")


@dataclass(frozen=True)
class ResolvedRecipe:
    """A phase's recipe with, for every knob, where its value came from (knob name → text).

    `knobs` are those that the phase alone has, `phase` is its name; their origins are named `preference.beta`.
    """

    recipe: Recipe
    origins: Mapping[str, str]
    knobs: PhaseKnobs | None = None
    phase: str = ""

    def values(self) -> dict[str, Any]:
        """Every knob by its name, in the order of `origins`."""
        found = self.recipe.model_dump()
        if self.knobs is not None:
            found |= {f"{self.phase}.{name}": value for name, value in self.knobs.model_dump().items()}
        return {name: found[name] for name in self.origins}

    def defaults(self) -> dict[str, Any]:
        """The default of every knob, as `values`."""
        knobs = None if self.knobs is None else type(self.knobs).model_validate({})
        return ResolvedRecipe(Recipe.model_validate({}), self.origins, knobs, self.phase).values()

    def stated(self) -> dict[str, str]:
        """The knobs that the user stated: name → flag or header."""
        return {name: origin for name, origin in self.origins.items() if origin in _STATED}

    def to_json(self) -> dict[str, Any]:
        """As a run and a version keep it: the recipe, and the phase's own knobs under its name."""
        stored = self.recipe.model_dump(mode="json")
        return stored if self.knobs is None else {**stored, self.phase: self.knobs.model_dump(mode="json")}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], origin: str) -> ResolvedRecipe:
        """What `to_json` wrote, all of it with one origin."""
        plain = {name: value for name, value in stored.items() if name not in PHASE_KNOBS}
        origins = dict.fromkeys(Recipe.model_fields, origin)
        for phase, model in PHASE_KNOBS.items():
            if phase in stored:
                origins |= dict.fromkeys((f"{phase}.{name}" for name in model.model_fields), origin)
                return cls(Recipe(**plain), origins, model(**stored[phase]), phase)
        return cls(Recipe(**plain), origins)


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """The known name most like `name`, or "" when none is near."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), "")


def knob_names() -> tuple[str, ...]:
    """Every knob, those of one phase as `preference.beta`."""
    phases = (f"{phase}.{name}" for phase, model in PHASE_KNOBS.items() for name in model.model_fields)
    return (*Recipe.model_fields, *phases)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read `key=value` as a knob and its raw value; a knob of one phase is written `preference.beta=0.2`.

    A value is taken as it is written, a list in brackets (`[q_proj, v_proj]`) apart, and `null` for unset; the recipe
    itself says whether it fits.

    Raises:
        UsageError: no `=`, or an unknown knob (the nearest one is named).
    """
    key, sign, raw = (part.strip() for part in text.partition("="))
    if not sign or not key or not raw:
        raise UsageError(f"--set takes key=value, found {text!r}", next_step="for example: --set lora_r=16")
    if key not in knob_names():
        hint = _nearest_knob(key)
        raise UsageError(
            f"unknown knob {key!r}",
            expected=f"one of {', '.join(knob_names())}",
            next_step=f"--set {hint}={raw}" if hint else "",
        )
    if raw.startswith("[") and raw.endswith("]"):
        return key, [name for part in raw[1:-1].split(",") if (name := part.strip().strip("'\""))]
    return key, None if raw in ("null", "~") else raw


def _nearest_knob(key: str) -> str:
    """The knob most likely meant: one of the same phase first, then one that a phase has under this very name."""
    phase, dot, name = key.partition(".")
    if dot:
        phase = nearest(phase, tuple(PHASE_KNOBS))
        near = nearest(name.rpartition(".")[2], tuple(PHASE_KNOBS[phase].model_fields)) if phase else ""
        return f"{phase}.{near}" if near else ""
    owners = [f"{phase}.{key}" for phase, model in PHASE_KNOBS.items() if key in model.model_fields]
    return owners[0] if owners else nearest(key, knob_names())


def resolve(
    header: Recipe,
    base_defaults: Mapping[str, Choice[Any]],
    flags: Mapping[str, Any],
) -> ResolvedRecipe:
    """Settle every knob: flags first, then what the header names, then the base's defaults, then ours.

    Raises:
        UsageError: a flag's value is out of range (all such values are named).
    """
    stated = {name: getattr(header, name) for name in header.model_fields_set if name in Recipe.model_fields}
    values, origins = _settle(Recipe, stated, base_defaults, flags)
    by_base = origins["min_steps"].startswith("base")
    if by_base and ("num_epochs" in flags or "num_epochs" in stated):
        values["min_steps"], origins["min_steps"] = 0, "num_epochs was stated"
    return ResolvedRecipe(_checked(Recipe, values), origins)


_SIMPO = {"beta": 2.0, "gamma": 1.0}  # its rewards are means per token: at DPO's beta no margin is in reach


def resolve_preference(
    header: Mapping[str, Any], base_defaults: Mapping[str, Choice[Any]], flags: Mapping[str, Any]
) -> tuple[PreferenceRecipe, dict[str, str]]:
    """Settle the preference phase's own knobs, as `resolve` does; returns them and their origins.

    Args:
        header: what the header states (`Preference.stated`), by names without a dot.
        base_defaults, flags: by names such as `preference.beta`; others are not looked at.

    Raises:
        UsageError: a flag's value is out of range (all such values are named), or a flag that the method does not read.
    """
    values, origins = _settle(PreferenceRecipe, header, base_defaults, flags, "preference.")
    recipe = _checked(PreferenceRecipe, values, "preference.")
    unread = {
        knob: methods
        for name, methods in _READ_BY.items()
        if (knob := f"preference.{name}") in flags and recipe.method not in methods
    }
    if unread:
        raise UsageError(
            f"{', '.join(unread)}: not read by the method {recipe.method}",
            expected="; ".join(f"{knob} with {' or '.join(methods)}" for knob, methods in unread.items()),
            next_step="leave it out, or name another --method",
        )
    if recipe.method == "orpo" and origins["preference.sft_weight"].startswith("base"):
        origins["preference.sft_weight"] = "orpo has the chosen answers' own loss already"
        recipe = recipe.model_copy(update={"sft_weight": 0.0})
    if recipe.method == "simpo":
        for name, value in _SIMPO.items():
            if origins[f"preference.{name}"] == "default":
                origins[f"preference.{name}"] = "default of simpo (arXiv 2405.14734)"
                recipe = recipe.model_copy(update={name: value})
    return recipe, origins


def resolve_reward(
    header: Mapping[str, Any], base_defaults: Mapping[str, Choice[Any]], flags: Mapping[str, Any]
) -> tuple[RewardRecipe, dict[str, str]]:
    """`resolve_preference` for the reward phase: names such as `reward.center`."""
    values, origins = _settle(RewardRecipe, header, base_defaults, flags, "reward.")
    return _checked(RewardRecipe, values, "reward."), origins


def resolve_rft(
    header: Mapping[str, Any], base_defaults: Mapping[str, Choice[Any]], flags: Mapping[str, Any]
) -> tuple[RftRecipe, dict[str, str]]:
    """`resolve_preference` for reinforcement fine-tuning: names such as `rft.group_size`."""
    values, origins = _settle(RftRecipe, header, base_defaults, flags, "rft.")
    return _checked(RftRecipe, values, "rft."), origins


def for_phase(
    resolved: ResolvedRecipe, phase: str, knobs: PhaseKnobs, origins: Mapping[str, str]
) -> ResolvedRecipe:
    """The recipe of a phase that brings its own learning rate and, if it has any, epochs; it is not stretched to
    `min_steps`, and drops nothing."""
    own: dict[str, Any] = {
        name: getattr(knobs, name) for name in _REPLACED if name in type(knobs).model_fields
    }
    recipe = resolved.recipe.model_copy(update={**own, "min_steps": 0, "lora_dropout": 0.0})
    replaced: dict[str, str] = {name: f"{phase}.{name}, {origins[f'{phase}.{name}']}" for name in own}
    if "num_epochs" not in own:  # the phase counts rounds
        recipe = recipe.model_copy(update={"num_epochs": Recipe.model_fields["num_epochs"].default})
        replaced["num_epochs"] = "default"
    if resolved.recipe.min_steps:
        replaced["min_steps"] = f"the {phase} phase is not stretched"
    if resolved.recipe.lora_dropout:
        replaced["lora_dropout"] = f"the {phase} phase compares log-probs and scores, without noise"
    return ResolvedRecipe(recipe, {**resolved.origins, **replaced, **origins}, knobs, phase)


def _settle(
    model: type[BaseModel],
    stated: Mapping[str, Any],
    base_defaults: Mapping[str, Choice[Any]],
    flags: Mapping[str, Any],
    prefix: str = "",
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values by field, defaults left out, and origins by knob (the field's name behind `prefix`)."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in model.model_fields:
        knob = prefix + name
        if knob in flags:
            values[name], origins[knob] = flags[knob], "flag"
        elif name in stated:
            values[name], origins[knob] = stated[name], "header"
        elif knob in base_defaults:
            values[name], origins[knob] = base_defaults[knob].value, f"base: {base_defaults[knob].reason}"
        else:
            origins[knob] = "default"
    return values, origins


def _checked(model: type[M], values: Mapping[str, Any], prefix: str = "") -> M:
    try:
        return model(**values)
    except ValidationError as error:
        found = error.errors()
    together = [str(fault["msg"]).removeprefix("Value error, ") for fault in found if not fault["loc"]]
    faults = {
        str(fault["loc"][0]): fault for fault in found if fault["loc"]
    }  # a union reports each of its members
    alone = [f"{prefix}{name}: {fault['msg']}" for name, fault in faults.items()]
    raise UsageError(
        "the recipe cannot be used: " + "; ".join([*alone, *together]),
        expected="; ".join(f"{prefix}{name}: {model.model_fields[name].description}" for name in faults),
        found="; ".join(f"{prefix}{name}={fault['input']}" for name, fault in faults.items()),
        next_step="dlm train --help names the page with every knob and its range",
    )
