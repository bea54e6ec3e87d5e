"""Which phases one invocation runs, each with its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlm.errors import UsageError
from dlm.recipe import ResolvedRecipe, for_phase, resolve, resolve_preference, resolve_reward, resolve_rft
from dlm.store import Version
from dlm.workflow.material import Material
from dlm.workflow.views import Phase, TrainOptions, TrainView

__all__ = ["plan_phases", "recipe_of", "refuse_unread", "warn_of_unread", "with_adapter_of"]

_OF_THE_ADAPTER = ("adapter", "lora_r", "lora_alpha", "target_modules")


def plan_phases(options: TrainOptions, material: Material, view: TrainView) -> tuple[Phase, ...]:
    """The phases to run, in order; where `all` leaves one out although there is something for it, a note says why.

    Raises:
        UsageError: the phase that was asked for has nothing to train on.
    """
    if options.phase == "sft":
        return ("sft",)
    if options.phase == "preference":
        _require_pairs(material.pairs, "preference", "::preference:: sections, or --pairs FILE")
        return ("preference",)
    if options.phase == "reward":
        found = [*material.pairs, *material.scalars]
        _require_pairs(found, "reward", "::preference:: sections, --pairs FILE or --scalars FILE")
        return ("reward",)
    if options.phase == "rft":
        _ = material.rewards  # read now: what is wrong with it is said before the base is loaded
        return ("rft",)
    if not material.pairs:
        return ("sft",)
    count = len(material.pairs)
    pairs = "1 preference pair" if count == 1 else f"{count:,} preference pairs"
    if material.document.header.training.preference.enabled is False:
        view.note(f"{pairs} not trained on: training.preference.enabled is false in the header")
        return ("sft",)
    if not material.has_rows:
        view.note(f"no questions and no prose to learn, only {pairs}: the preference phase runs alone")
        return ("preference",)
    return ("sft", "preference")


def _require_pairs(found: Sequence[object], phase: str, expected: str) -> None:
    if not found:
        raise UsageError(
            f"the {phase} phase has nothing to train on: there are no pairs",
            expected=expected,
            next_step="dlm init --template preference FILE shows how pairs are written",
        )


def refuse_unread(options: TrainOptions) -> None:
    """See that everything on the command line is read by a phase that may run.

    Raises:
        UsageError: a knob or file of a phase that does not run, whatever the document holds.
    """
    possible = {"sft", "preference"} if options.phase == "all" else {options.phase}
    for phase in ("preference", "reward", "rft"):
        named = _knobs_of(phase, options)
        if named and phase not in possible:
            raise UsageError(
                f"{', '.join(named)}: only the {phase} phase reads this, and it does not run with --phase {options.phase}",
                next_step=f"--phase {phase}, or leave it out",
            )
    if options.phase in ("preference", "reward", "rft"):
        _refuse_sft_knobs(options)
    if options.scalars_files and "reward" not in possible:
        raise UsageError("--scalars is read by the reward phase alone", next_step="--phase reward")
    if options.rows_files and options.phase == "reward":
        raise UsageError("--rows is not read by the reward phase", next_step="leave it out, or --pairs FILE")
    if options.pairs_files and options.phase == "rft":
        raise UsageError(
            "--pairs is not read by the rft phase", next_step="leave it out, or --phase preference"
        )
    if options.start not in (None, "base") and options.phase == "reward":
        raise UsageError(
            "--start is not read by the reward phase: its scoring head begins on the base",
            next_step="leave it out",
        )
    if options.start is not None and options.resume:
        raise UsageError(
            "--resume goes on from where the run began, and --start names another place",
            next_step="leave one out",
        )
    of_rft = {"--prompts": options.prompts_files, "--grader": options.grader, "--suite": options.suite}
    named = [flag for flag, value in of_rft.items() if value]
    if named and "rft" not in possible:
        raise UsageError(f"{', '.join(named)}: read by the rft phase alone", next_step="--phase rft")


def _refuse_sft_knobs(options: TrainOptions) -> None:
    """The other phases bring their own rate and epochs, or rounds."""
    for name in ("learning_rate", "num_epochs"):
        if name in options.knobs:
            rounds = options.phase == "rft" and name == "num_epochs"
            own = "rft.steps=…" if rounds else f"{options.phase}.{name}={options.knobs[name]}"
            raise UsageError(
                f"{name}: only the sft phase reads this, and it does not run with --phase {options.phase}",
                next_step=f"--set {own}",
            )


def warn_of_unread(options: TrainOptions, phases: Sequence[Phase], view: TrainView) -> None:
    """Say which knobs are not read because the document has nothing for their phase."""
    named = _knobs_of("preference", options)
    if named and "preference" not in phases:
        view.warn(f"not read, as the preference phase does not run: {', '.join(named)}")


def _knobs_of(phase: str, options: TrainOptions) -> list[str]:
    return [name for name in options.knobs if name.startswith(f"{phase}.")]


def recipe_of(phase: Phase, material: Material, knobs: Mapping[str, Any]) -> ResolvedRecipe:
    """Settle every knob of a phase: flags, then the header, then the base's defaults, then ours.

    Raises:
        UsageError: a value is out of range, or cannot be trained with.
    """
    training, defaults = material.document.header.training, material.spec.defaults
    resolved = resolve(training, defaults, knobs)
    if resolved.recipe.precision == "fp16":
        raise UsageError(
            "training in fp16 is not offered: its gradients underflow without loss scaling",
            next_step="--set precision=bf16, or leave precision unset",
        )
    if phase == "preference":
        return for_phase(resolved, phase, *resolve_preference(training.preference.stated, defaults, knobs))
    if phase == "reward":
        return for_phase(resolved, phase, *resolve_reward(training.reward.stated, defaults, knobs))
    if phase == "rft":
        return for_phase(resolved, phase, *resolve_rft(training.rft.stated, defaults, knobs))
    return resolved


def with_adapter_of(version: Version, resolved: ResolvedRecipe, view: TrainView) -> ResolvedRecipe:
    """The recipe with the adapter's shape as the version has it, from which the run goes on.

    Raises:
        UsageError: a flag asks for another shape.
    """
    shape = {name: version.recipe[name] for name in _OF_THE_ADAPTER if name in version.recipe}
    other = [name for name, value in shape.items() if getattr(resolved.recipe, name) != value]
    asked = [name for name in other if resolved.origins[name] == "flag"]
    if asked:
        raise UsageError(
            f"{', '.join(asked)}: the phase goes on from {version.name}, whose adapter keeps its shape",
            expected=", ".join(f"{name} {shape[name]}" for name in asked),
            next_step="dlm train DOCUMENT --phase sft makes a version with another adapter",
        )
    stated = [f"{name} {shape[name]}" for name in other if resolved.origins[name] == "header"]
    if stated:
        view.note(f"the adapter keeps the shape it has in {version.name}: {', '.join(stated)}")
    recipe = resolved.recipe.model_copy(update=shape)
    usual = resolved.defaults()
    kept = {
        name: "default" if value == usual[name] else f"as {version.name} has it"
        for name, value in shape.items()
    }
    origins = {**resolved.origins, **kept}
    return ResolvedRecipe(recipe, origins, resolved.knobs, resolved.phase)
