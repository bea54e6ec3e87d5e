"""The preference phase: pairs, prepared for the loop.

It moves the adapter of the version it starts from, or a fresh one, and measures DPO against the state it started from.
Supervised rows are not trained on; what they score is watched, so that it shows when facts are lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlm.errors import TrainingError, UsageError
from dlm.model import Policy
from dlm.recipe import PreferenceRecipe, Recipe
from dlm.training.acceleration import accelerated
from dlm.training.examples import Row
from dlm.training.findings import Finding, pair_findings
from dlm.training.loop import Selection
from dlm.training.objectives import PreferenceObjective, Reference
from dlm.training.pairs import Pair, PairExample, Reason, SkippedPair, encode_pairs, select_pairs, split_pairs
from dlm.training.prepared import (
    Limit,
    Prepared,
    Spread,
    Stored,
    limit_of,
    listed,
    preflight_of,
    refuse_if_many_skipped,
    settle,
    special_tokens_in,
    without_validation,
)
from dlm.training.reference import ReferenceCache, Scorer, compute_reference
from dlm.training.sft import sft_monitors

__all__ = ["PAIR_SELECTION", "PairSplit", "prepare_preference", "refuse_without_pairs", "split_and_encode"]

PAIR_SELECTION = Selection((("val_pref_acc", "max"), ("valid_loss", "min")))
"""An evaluation is better that ranks more held-out pairs right; among equals, the one with the smaller loss."""


@dataclass(frozen=True)
class PairSplit:
    """Pairs as examples on their two sides, what was left out and why, and what to look at.

    `selected` are the pairs of both sides and `counts` their number on each, before the tokenizer.
    """

    train: tuple[PairExample, ...]
    validation: tuple[PairExample, ...]
    reason: str
    selected: tuple[Pair, ...]
    counts: Mapping[str, int]
    skipped: tuple[SkippedPair, ...]
    findings: Sequence[Finding]

    @property
    def tokens(self) -> Mapping[str, Spread]:
        """Tokens of the training pairs: the whole with its prompt once, and each part."""
        return {
            "whole": Spread.of(len(one.prompt) + one.n_targets for one in self.train),
            "prompt": Spread.of(len(one.prompt) for one in self.train),
            "chosen": Spread.of(len(one.chosen) for one in self.train),
            "rejected": Spread.of(len(one.rejected) for one in self.train),
        }


def split_and_encode(
    pairs: Sequence[Pair],
    policy: Policy,
    recipe: Recipe,
    limit: Limit,
    *,
    min_margin: float,
    include_mined: bool,
) -> PairSplit:
    """Select, split by prompt and encode pairs.

    Raises:
        UsageError: no pair is left to train on.
        TrainingError: no pair fits, or more than a tenth of them do not.
    """
    selection = select_pairs(pairs, min_margin=min_margin, include_mined=include_mined)
    train_pairs, validation_pairs, reason = split_pairs(selection.pairs, recipe.val_fraction)
    train, validation = (
        encode_pairs(part, policy.chat, limit.tokens.value) for part in (train_pairs, validation_pairs)
    )
    unfit = (*train.skipped, *validation.skipped)
    skipped = (*selection.left_out, *unfit)
    if not train.examples:
        raise _nothing_to_train(pairs, skipped)
    refuse_if_many_skipped(unfit, len(selection.pairs), "pairs", limit)
    return PairSplit(
        train=train.examples,
        validation=validation.examples,
        reason=reason,
        selected=selection.pairs,
        counts={"train": len(train_pairs), "validation": len(validation_pairs)},
        skipped=skipped,
        findings=pair_findings(skipped, (*train.examples, *validation.examples)),
    )


def _split(
    pairs: Sequence[Pair], policy: Policy, recipe: Recipe, preference: PreferenceRecipe, limit: Limit
) -> PairSplit:
    margin, mined = preference.min_margin, preference.include_mined
    return split_and_encode(pairs, policy, recipe, limit, min_margin=margin, include_mined=mined)


def refuse_without_pairs(
    pairs: Sequence[Pair], policy: Policy, recipe: Recipe, preference: PreferenceRecipe
) -> None:
    """What `prepare_preference` would say of the pairs, before the phase that comes first has trained for hours.

    Raises:
        UsageError, TrainingError: see `split_and_encode`.
    """
    _split(pairs, policy, recipe, preference, limit_of(policy, recipe))


def prepare_preference(
    pairs: Sequence[Pair],
    rows: Sequence[Row],
    policy: Policy,
    model: Any,
    recipe: Recipe,
    preference: PreferenceRecipe,
    reference_folder: Path | None,
    stored: Stored | None = None,
) -> Prepared:
    """Select, split, encode and plan a run over pairs, and take DPO's reference log-probs.

    Call it before a checkpoint is loaded: the reference is the adapter as the run starts from it.

    Args:
        rows: the document's supervised rows, watched and never trained on.
        policy: the base with the version to start from, or with a fresh adapter inside its model.
        model: the model with its adapter open to training, as `start_adapter` gives it.
        recipe: with the learning rate and epochs of the preference phase (`dlm.recipe.for_phase`).
        reference_folder: where reference log-probs are kept; None: they are not taken, and what comes out can be looked
            at but not trained.
        stored: what the run being resumed began with.

    Raises:
        UsageError, TrainingError: see `split_and_encode`; or a layout was named that does not fit the base.
        NonFiniteError: the reference gives log-probs that are not finite numbers.
    """
    limit = limit_of(policy, recipe)
    split = _split(pairs, policy, recipe, preference, limit)
    settled = settle(split.train, policy, model, recipe, stored)
    cache = None if reference_folder is None else ReferenceCache(reference_folder)
    reference: Reference = {}
    report = None
    if cache is not None and preference.method == "dpo":
        with_adapter = preference.reference == "pre_adapter"
        scorer = Scorer.of(policy, model, settled.products.value, with_adapter=with_adapter)
        examples = (*split.train, *split.validation)
        with accelerated(model, settled.products.value):
            reference, report = compute_reference(model, settled.layout, examples, cache, scorer)
    objective = PreferenceObjective(settled.layout, preference, reference)
    monitors, probes = sft_monitors(rows, policy, recipe, settled)
    preflight = preflight_of(
        settled,
        model,
        rows={**split.counts, "probes": len(probes)}
        | {one.prefix: len(one.rows) for one in monitors if one.rows and one.prefix != "probe"},
        used=split.selected,
        tokens=split.tokens,
        limit=limit,
        skipped=split.skipped,
        special_tokens=special_tokens_in(policy, pair_texts(split.selected)),
        split_reason=split.reason,
        reference=report,
        notes=[*without_validation(recipe, split.validation), *([] if cache is None else cache.notes)],
    )
    return Prepared(
        train=split.train,
        validation=split.validation,
        monitors=monitors,
        probes=probes,
        plan=settled.planned.plan,
        objective=objective,
        preflight=preflight,
        layout=settled.layout_choice,
        products=settled.products,
        findings=split.findings,
        selection=PAIR_SELECTION if split.validation else None,
    )


def pair_texts(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    """(place, everything a pair says)."""
    return [(pair.place, f"{pair.prompt}\n{pair.chosen}\n{pair.rejected}") for pair in pairs]


def _nothing_to_train(pairs: Sequence[Pair], skipped: Sequence[SkippedPair]) -> TrainingError | UsageError:
    kinds: dict[Reason, str] = {"mined": "mined", "below_margin": "below the margin", "reverted": "reverted"}
    asked_for = Counter(one.kind for one in skipped if one.kind in kinds)
    if skipped and asked_for.total() < len(skipped):
        return TrainingError(
            f"no pair can be trained on:\n{listed(skipped)}",
            next_step="mend those pairs, or add others",
        )
    if asked_for:
        return UsageError(
            f"nothing to train on: all {len(pairs)} pairs are left out{'' if asked_for['reverted'] else ' as asked for'}",
            found=", ".join(f"{asked_for[kind]} {words}" for kind, words in kinds.items() if asked_for[kind]),
            next_step="train on mined pairs, too, or lower min_margin; dlm preference accept DOCUMENT ID "
            "takes a reverted pair back",
        )
    return UsageError(
        "nothing to train on: there are no pairs",
        expected="::preference:: sections with ### Prompt, ### Chosen and ### Rejected, or a file with --pairs",
        next_step="write a pair into the document; dlm init shows how in a new document",
    )
