"""The supervised phase: questions with their answers, and prose, prepared for the loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlm.errors import TrainingError, UsageError
from dlm.model import Policy
from dlm.recipe import PreferenceRecipe, Recipe
from dlm.training.acceleration import accelerated
from dlm.training.examples import Encoded, Example, Row, SkippedRow, encode, split_rows
from dlm.training.findings import row_findings
from dlm.training.loop import HeldOut, Selection
from dlm.training.objectives import PreferenceObjective, Reference, SftObjective
from dlm.training.pairs import Pair, encode_pairs, select_pairs, split_pairs
from dlm.training.prepared import (
    Limit,
    Prepared,
    Settled,
    Spread,
    Stored,
    fixed_sample,
    limit_of,
    listed,
    preflight_of,
    refuse_if_many_skipped,
    settle,
    special_tokens_in,
    without_validation,
)
from dlm.training.reference import ReferenceCache, ReferenceReport, Scorer, compute_reference

__all__ = ["prepare_sft", "sft_monitors"]

_PAIRS_WATCHED = 32


def prepare_sft(
    rows: Sequence[Row],
    pairs: Sequence[Pair],
    policy: Policy,
    model: Any,
    recipe: Recipe,
    *,
    reference_folder: Path | None = None,
    stored: Stored | None = None,
) -> Prepared:
    """Encode, split and plan a run over rows. Pairs are not trained on, only watched: metrics `pairs_…`.

    Args:
        policy: the base, with a fresh adapter inside its model.
        model: the model with the adapter, as `add_adapter` gives it.
        reference_folder: where log-probs of the watched pairs under the base are kept; None: they are not taken, and with
            pairs what comes out can be looked at but not trained.
        stored: what the run being resumed began with.

    Raises:
        UsageError: nothing to train on, or a layout was named that does not fit the base.
        TrainingError: no row fits, or more than a tenth of the rows do not.
    """
    limit = limit_of(policy, recipe)
    train_rows, validation_rows, split_reason = split_rows(rows, recipe.val_fraction)
    probe_rows = [row for row in rows if row.probe]
    train, validation, probes = (
        encode(part, policy.chat, limit.tokens.value) for part in (train_rows, validation_rows, probe_rows)
    )
    to_learn = (*train.skipped, *validation.skipped)
    skipped = (*to_learn, *probes.skipped)
    if not train.examples:
        raise _nothing_to_train(rows, skipped)
    refuse_if_many_skipped(to_learn, len(train_rows) + len(validation_rows), "rows", limit)
    settled = settle(train.examples, policy, model, recipe, stored)
    objective = SftObjective(settled.layout)
    cache = None if reference_folder is None else ReferenceCache(reference_folder)
    watched, report = _watched_pairs(pairs, policy, model, recipe, limit, settled, cache)
    encoded = Encoded((*train.examples, *validation.examples), skipped, 0)
    preflight = preflight_of(
        settled,
        model,
        rows={"train": len(train_rows), "validation": len(validation_rows), "probes": len(probe_rows)}
        | ({"pairs": len(watched.rows)} if watched else {}),
        used=(*train_rows, *validation_rows),
        tokens={
            "whole": Spread.of(len(example.ids) for example in train.examples),
            "prompt": Spread.of(len(example.prompt) for example in train.examples),
            "answer": Spread.of(example.n_targets for example in train.examples),
        },
        limit=limit,
        skipped=skipped,
        split_prose=train.split_prose + validation.split_prose,
        special_tokens=special_tokens_in(
            policy, ((row.place, f"{row.prompt or ''}\n{row.text}") for row in rows)
        ),
        split_reason=split_reason,
        reference=report,
        notes=[
            *without_validation(recipe, validation.examples),
            *([] if cache is None else cache.notes),
        ],
    )
    return Prepared(
        train=train.examples,
        validation=validation.examples,
        monitors=[HeldOut("probe", objective, probes.examples), *([watched] if watched else [])],
        probes=probes.examples,
        plan=settled.planned.plan,
        objective=objective,
        preflight=preflight,
        layout=settled.layout_choice,
        products=settled.products,
        findings=row_findings(rows, encoded),
        selection=Selection((("valid_loss", "min"),)) if validation.examples else None,
    )


def sft_monitors(
    rows: Sequence[Row], policy: Policy, recipe: Recipe, settled: Settled
) -> tuple[list[HeldOut], tuple[Example, ...]]:
    """What a preference run watches of the supervised rows, none of which it trains on: those that the supervised phase
    holds out (`sft_valid`) and the probes (`probe`); and the probes by themselves. Rows that do not fit are passed over.
    """
    limit = limit_of(policy, recipe).tokens.value
    objective = SftObjective(settled.layout)
    held_out = encode(split_rows(rows, recipe.val_fraction)[1], policy.chat, limit).examples
    probes = encode([row for row in rows if row.probe], policy.chat, limit).examples
    return [
        HeldOut("sft_valid", objective, fixed_sample(held_out)),
        HeldOut("probe", objective, probes),
    ], probes


def _watched_pairs(
    pairs: Sequence[Pair],
    policy: Policy,
    model: Any,
    recipe: Recipe,
    limit: Limit,
    settled: Settled,
    cache: ReferenceCache | None,
) -> tuple[HeldOut | None, ReferenceReport | None]:
    """Pairs that show what supervised training does to preferences: those that a preference run would hold out, or of
    few pairs all, against the base."""
    sound = select_pairs(pairs).pairs
    _, held_out, _ = split_pairs(sound, recipe.val_fraction)
    examples = encode_pairs(held_out or sound, policy.chat, limit.tokens.value).examples
    if not examples:
        return None, None
    examples = tuple(fixed_sample(examples, _PAIRS_WATCHED))
    reference: Reference = {}
    report = None
    if cache is not None:
        scorer = Scorer.of(policy, model, settled.products.value, with_adapter=False)
        with accelerated(model, settled.products.value):
            reference, report = compute_reference(model, settled.layout, examples, cache, scorer)
    objective = PreferenceObjective(settled.layout, PreferenceRecipe.model_validate({}), reference)
    return HeldOut("pairs", objective, examples), report


def _nothing_to_train(rows: Sequence[Row], skipped: Sequence[SkippedRow]) -> TrainingError | UsageError:
    if skipped:
        return TrainingError(
            f"no row fits:\n{listed(skipped)}",
            next_step="shorten the rows, or choose a base with a longer context",
        )
    return UsageError(
        "nothing to train on",
        expected="prose or ::instruction:: sections with questions that are not probes",
        found=f"{len(rows)} rows, {sum(row.probe for row in rows)} of them probes",
        next_step="add a question with its answer, or some prose; dlm init shows how in a new document",
    )
