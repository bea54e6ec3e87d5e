"""The recipe: every knob of a training run, described once.

The document's header (`training:`), `--set key=value`, the environment, the reference page and `dlm show` all read
these fields (`knobs`). A knob's value comes from the first of: a flag, the header, the base's own default, the default
here; `resolve` says which one it was, and why (`settling`).
"""

from dlm.recipe.knobs import (
    PHASE_KNOBS,
    Choice,
    PhaseKnobs,
    PreferenceChoices,
    PreferenceNumbers,
    PreferenceRecipe,
    Recipe,
    RewardRecipe,
    RftRecipe,
)
from dlm.recipe.settling import (
    ResolvedRecipe,
    for_phase,
    knob_names,
    nearest,
    parse_assignment,
    resolve,
    resolve_preference,
    resolve_reward,
    resolve_rft,
)

__all__ = [
    "PHASE_KNOBS",
    "Choice",
    "PhaseKnobs",
    "PreferenceChoices",
    "PreferenceNumbers",
    "PreferenceRecipe",
    "Recipe",
    "ResolvedRecipe",
    "RewardRecipe",
    "RftRecipe",
    "for_phase",
    "knob_names",
    "nearest",
    "parse_assignment",
    "resolve",
    "resolve_preference",
    "resolve_reward",
    "resolve_rft",
]
