"""A phase's model and rows, loaded and prepared: what a run, a resumed run and a dry run begin with alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlm.errors import TrainingError, UsageError
from dlm.grading import Grader, make_grader
from dlm.model import Policy, load_policy
from dlm.recipe import Choice, PreferenceRecipe, ResolvedRecipe, RewardRecipe, RftRecipe
from dlm.store import Run, Version
from dlm.training import (
    Estimate,
    Prepared,
    adapter_to_train,
    add_reward_head,
    data_hash,
    first_window,
    pairs_hash,
    prepare_preference,
    prepare_reward,
    prepare_rft,
    prepare_sft,
    prompts_hash,
    refuse_without_pairs,
    shard,
    sharding_wanted,
    start_adapter,
)
from dlm.workflow.material import Material
from dlm.workflow.resuming import RunFacts, changed
from dlm.workflow.seen_rows import seen_row
from dlm.workflow.views import Briefing, Phase, Preview, TrainView

__all__ = ["Loaded", "brief", "hash_of_data", "load_phase", "method_of", "preview"]

_SHOWN_ROWS = 3


@dataclass(frozen=True)
class Loaded:
    """A phase's policy, its model with the adapter open to training, and the run that is planned over it."""

    policy: Policy
    model: Any
    prepared: Prepared
    grader: Grader | None = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While the context lasts; then what a grader has started is ended."""
        try:
            yield
        finally:
            if self.grader is not None:
                self.grader.close()


def method_of(resolved: ResolvedRecipe) -> str:
    """How a phase trains: sft, dpo, orpo, simpo, bradley-terry, grpo, dapo or dr_grpo."""
    knobs = resolved.knobs
    if isinstance(knobs, PreferenceRecipe):
        return knobs.method
    if isinstance(knobs, RftRecipe):
        return knobs.loss_type
    return "sft" if knobs is None else "bradley-terry"


def hash_of_data(phase: Phase, material: Material) -> str:
    """64 hex digits over what a phase trains on, before anything is selected."""
    if phase == "sft":
        return data_hash(material.rows)
    if phase == "rft":
        rewards = material.rewards
        stated = (rewards.grader.text, rewards.pass_threshold, rewards.budget and rewards.budget.value)
        return hashlib.sha256(f"{stated}\n{prompts_hash(rewards.prompts)}".encode()).hexdigest()
    if phase == "preference" or not material.scalars:
        return pairs_hash(material.pairs)
    scored = [(one.prompt, one.response, one.score) for one in material.scalars]
    return hashlib.sha256(f"{pairs_hash(material.pairs)}{json.dumps(scored)}".encode()).hexdigest()


def load_phase(
    phase: Phase,
    resolved: ResolvedRecipe,
    start: Version | None,
    material: Material,
    *,
    device: str,
    precision: str | None,
    references: Path | None,
    view: TrainView,
    resumed: Run | None = None,
    then: Sequence[ResolvedRecipe] = (),
) -> Loaded:
    """Load a phase's model and prepare its run.

    Args:
        start: the version that the run moves on; None: a fresh adapter.
        precision: of the base's weights; None chooses.
        references: the folder of cached log-probs; None: to look only, and none are computed.
        resumed: the run that goes on; threads, plan and layout are those it began with.
        then: recipes of the phases that are to follow; their pairs are looked at now.

    Raises:
        BaseModelError, UsageError, TrainingError: the phase cannot start, or one that is to follow has no pair to use.
    """
    policy = load_policy(
        material.spec,
        None if start is None else start.folder,
        device=device,
        precision=precision,
        system_prompt=material.document.header.system_prompt,
        trainable=start is not None,
    )
    for remark in policy.notes:
        view.note(f"{material.spec.name}: {remark}")
    recipe, stored = resolved.recipe, None
    if resumed is not None:
        stored = RunFacts.read(resumed).stored
        torch.set_num_threads(resumed.threads)  # another number of threads takes sums in another order
        if resumed.base_fingerprint != policy.fingerprint:
            raise changed("the base's files", resumed, material.path)
    _refuse_later_phases(then, material, policy, resumed)
    if isinstance(resolved.knobs, PreferenceRecipe):
        model = _spread(start_adapter(policy, recipe), policy)
        prepared = prepare_preference(
            material.pairs, material.rows, policy, model, recipe, resolved.knobs, references, stored
        )
    elif isinstance(resolved.knobs, RewardRecipe):
        model = _spread(add_reward_head(policy, recipe), policy)
        prepared = prepare_reward(
            material.pairs, policy, model, recipe, resolved.knobs, scalars=material.scalars, stored=stored
        )
    elif isinstance(resolved.knobs, RftRecipe):
        model, rewards = start_adapter(policy, recipe), material.rewards
        grader = make_grader(
            rewards.grader, folder=material.path.parent, pass_threshold=rewards.pass_threshold
        )
        prepared = prepare_rft(
            rewards.prompts,
            material.rows,
            policy,
            model,
            recipe,
            resolved.knobs,
            grader,
            budget=rewards.budget,
            stored=stored,
        )
        return Loaded(policy, model, prepared, grader)
    else:
        model = _spread(adapter_to_train(policy, recipe), policy)
        prepared = prepare_sft(
            material.rows,
            material.pairs,
            policy,
            model,
            recipe,
            reference_folder=references,
            stored=stored,
        )
    return Loaded(policy, model, prepared)


def _refuse_later_phases(
    then: Sequence[ResolvedRecipe], material: Material, policy: Policy, resumed: Run | None
) -> None:
    """Look at the pairs of the phases that are to follow, while `--phase sft` is still a way out."""
    flags = "--phase sft" if resumed is None else "--resume --phase sft"
    for later in then:
        if isinstance(later.knobs, PreferenceRecipe):
            try:
                refuse_without_pairs(material.pairs, policy, later.recipe, later.knobs)
            except (UsageError, TrainingError) as fault:
                fault.next_step += f"; or {flags}, which trains without pairs"
                raise


def _spread(model: Any, policy: Policy) -> Any:
    """The model, its frozen layers spread over the processes where the launch asks for it."""
    if sharding_wanted():
        shard(model, policy.device.value)
    return model


def brief(
    phase: Phase,
    resolved: ResolvedRecipe,
    start: Choice[Version | None],
    material: Material,
    loaded: Loaded,
    *,
    run_id: int | None,
    resumed_at: int,
    threads: Choice[int],
    estimate: Estimate | None,
) -> Briefing:
    """Everything known before the first step."""
    policy, prepared = loaded.policy, loaded.prepared
    return Briefing(
        phase=phase,
        method=method_of(resolved),
        start=Choice("the base" if start.value is None else start.value.name, start.reason),
        run_id=run_id,
        resumed_at=resumed_at,
        document=material.path,
        base=material.spec.name,
        device=policy.device,
        dtype=policy.dtype,
        threads=threads,
        layout=prepared.layout,
        products=prepared.products,
        sections=material.sections,
        resolved=resolved,
        preflight=prepared.preflight,
        findings=prepared.findings,
        estimate=estimate,
    )


def preview(
    phase: Phase,
    resolved: ResolvedRecipe,
    start: Choice[Version | None],
    material: Material,
    device: str,
    view: TrainView,
) -> Preview:
    """What a phase would do, and the first rows of its first step as the model would see them."""
    loaded = load_phase(
        phase,
        resolved,
        start.value,
        material,
        device=device,
        precision=resolved.recipe.precision,
        references=None,
        view=view,
    )
    briefing = brief(
        phase,
        resolved,
        start,
        material,
        loaded,
        run_id=None,
        resumed_at=0,
        threads=loaded.policy.threads,
        estimate=None,
    )
    window = first_window(loaded.prepared, resolved.recipe)
    tokenizer = loaded.policy.tokenizer
    rows = [seen_row(row, tokenizer, reward=phase == "reward") for row in window[:_SHOWN_ROWS]]
    return Preview(briefing, rows)
