"""What a run is about to do: its rows, plan and layout, settled and counted before the first step.

All phases are prepared into the same shape, so that what follows (the estimate, the loop, the last scoring) does not
know which phase it is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlm.errors import TrainingError
from dlm.model import Policy, choose_products
from dlm.recipe import Choice, Recipe
from dlm.training.acceleration import accelerated
from dlm.training.examples import Example, Row, SkippedRow
from dlm.training.findings import Finding
from dlm.training.layout import Layout, Tree
from dlm.training.layout_choice import choose_layout
from dlm.training.loop import HeldOut, Plan, Selection
from dlm.training.objectives import Objective
from dlm.training.pairs import Pair, PairExample, SkippedPair
from dlm.training.planning import Planned, plan_run, rows_read
from dlm.training.prompts import Prompt, PromptExample, SkippedPrompt
from dlm.training.reference import ReferenceReport
from dlm.training.rollouts import Rollouts
from dlm.training.world import current

__all__ = [
    "Limit",
    "Preflight",
    "Prepared",
    "Settled",
    "Spread",
    "Stored",
    "fixed_sample",
    "limit_of",
    "refuse_if_many_skipped",
    "settle",
]

MAX_SKIPPED_SHARE = 0.1
SAMPLE = 64  # held-out rows scored at every evaluation; the end of the run scores them all

Skipped = SkippedRow | SkippedPair | SkippedPrompt


@dataclass(frozen=True)
class Spread:
    """How a number of tokens is spread over examples."""

    min: int
    median: int
    max: int
    total: int

    @classmethod
    def of(cls, lengths: Iterable[int]) -> Spread:
        """The spread of at least one length."""
        ordered = sorted(lengths)
        return cls(ordered[0], ordered[len(ordered) // 2], ordered[-1], sum(ordered))


@dataclass(frozen=True)
class Preflight:
    """What a run is about to do, counted before it does anything.

    `rows` counts rows and pairs by their use (`train`, `validation`, `probes`, and what else is watched) before the
    tokenizer; `origins` those trained on or held out, by file. `tokens` are those of the training examples: of the whole,
    the prompt once, and of each part. `left_out` counts `skipped` by kind.
    """

    rows: Mapping[str, int]
    origins: Mapping[str, int]
    tokens: Mapping[str, Spread]
    max_len: Choice[int]
    skipped: Sequence[Skipped]
    split_prose: int
    special_tokens: Sequence[tuple[str, str]]  # (place, token): control tokens written out in a row's text
    split_reason: str
    plan: Plan
    epochs: Choice[float]
    micro: Choice[int]
    order: Choice[bool]
    trainable_parameters: int
    total_parameters: int
    reference: ReferenceReport | None = None
    notes: Sequence[str] = ()

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many rows or pairs were left out, by kind."""
        return Counter(one.kind for one in self.skipped)

    @property
    def tokens_min(self) -> int:
        """Tokens of the shortest example."""
        return self.tokens["whole"].min

    @property
    def tokens_median(self) -> int:
        """Tokens of an example in the middle."""
        return self.tokens["whole"].median

    @property
    def tokens_max(self) -> int:
        """Tokens of the longest example."""
        return self.tokens["whole"].max

    @property
    def tokens_total(self) -> int:
        """Tokens of all examples."""
        return self.tokens["whole"].total


@dataclass(frozen=True)
class Prepared:
    """A run of any phase, ready to start.

    `validation` are the phase's own held-out rows; `monitors` what else is scored while it runs, probes included;
    `probes` the questions to be answered before and after. With `rollouts` the rows are prompts, and what is learnt from
    and measured are the policy's answers to them.
    """

    train: Sequence[Example | PairExample | PromptExample]
    validation: Sequence[Example | PairExample | PromptExample]
    monitors: Sequence[HeldOut]
    probes: Sequence[Example]
    plan: Plan
    objective: Objective
    preflight: Preflight
    layout: Choice[str]
    products: Choice[str]
    findings: Sequence[Finding]
    selection: Selection | None
    rollouts: Rollouts | None = None

    @property
    def fingerprint(self) -> str:
        """64 hex digits over every token the run reads: rows, system prompt and template all show in it."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.probes):
            digest.update(f"{len(part)}\n".encode())
            for tree in part:
                digest.update(f"{tree.prompt}:{tree.branches}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Stored:
    """What a run that goes on must use again, whatever would be chosen now."""

    plan: Plan
    layout: str
    products: str


# --- steps that the phases share ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limit:
    """The most tokens a prompt and an answer may have together, and what says so."""

    tokens: Choice[int]

    @property
    def advice(self) -> str:
        """What a refused user may do beside shortening rows."""
        return ", or raise sequence_len" if self.tokens.reason == "sequence_len" else ""


def limit_of(policy: Policy, recipe: Recipe) -> Limit:
    """The recipe's limit, or the base's where that is less."""
    if recipe.sequence_len <= policy.context_length:
        return Limit(Choice(recipe.sequence_len, "sequence_len"))
    return Limit(Choice(policy.context_length, "the base's context"))


def refuse_if_many_skipped(skipped: Sequence[Skipped], of: int, noun: str, limit: Limit) -> None:
    """Raises `TrainingError` when more than a tenth of the rows or pairs to learn from do not fit."""
    if len(skipped) > MAX_SKIPPED_SHARE * of:
        raise TrainingError(
            f"{len(skipped)} of {of} {noun} do not fit:\n" + listed(skipped),
            next_step=f"shorten or split those {noun}{limit.advice}",
        )


def listed(skipped: Sequence[Skipped]) -> str:
    """One line for each row or pair that was left out."""
    return "\n".join(f"  {one.row.place}: {one.reason}" for one in skipped)


@dataclass(frozen=True)
class Settled:
    """How a run computes: the layout, the kernels, and the plan."""

    layout: Layout
    layout_choice: Choice[str]
    products: Choice[str]
    planned: Planned


def settle(
    rows: Sequence[Tree],
    policy: Policy,
    model: Any,
    recipe: Recipe,
    stored: Stored | None,
    *,
    headless: bool | None = None,
    planned_rows: int | None = None,
) -> Settled:
    """Choose products, layout and plan for a run over `rows`, or take those it began with.

    Several processes take the main one's choices: what was measured may differ between them.

    Args:
        model: computes the log-probs by which layouts are compared and timed.
        headless: whether the run scores without the model's own head, where that is not what `model` does.
        planned_rows: rows that the run will read, each as often as it does; None: as the recipe's epochs and steps say.

    Raises:
        UsageError: a layout was named that does not fit the base.
    """
    world = current()
    device = policy.device.value
    if stored is None:
        products = world.from_main(choose_products(device))
    else:
        products = Choice(stored.products, "as the run began")
    with accelerated(model, products.value):
        chosen = choose_layout(
            model,
            rows,
            policy.tokenizer.pad_token_id,
            device,
            wanted=recipe.layout if stored is None else stored.layout,
            embedding_noise=recipe.neftune_alpha > 0,
            planned_rows=rows_read(len(rows), recipe) if planned_rows is None else planned_rows,
        )
    reason = chosen.reason if stored is None else "as the run began"
    layout_choice = world.from_main(Choice(chosen.value.name, reason))
    layout = replace(chosen.value, name=layout_choice.value)
    if headless is not None:
        layout = replace(layout, headless=headless)
    vocab_size, width = model.get_input_embeddings().weight.shape
    planned = plan_run(rows, layout, recipe, hidden_width=width, vocab_size=vocab_size)
    if stored is not None:
        micro = Choice(stored.plan.micro_rows, "as the run began")
        order = Choice(stored.plan.by_length, "as the run began")
        planned = replace(planned, plan=stored.plan, micro=micro, order=order)
    return Settled(layout, layout_choice, products, planned)


def preflight_of(
    settled: Settled,
    model: Any,
    *,
    rows: Mapping[str, int],
    used: Iterable[Row | Pair | Prompt],
    tokens: Mapping[str, Spread],
    limit: Limit,
    skipped: Sequence[Skipped],
    special_tokens: Sequence[tuple[str, str]],
    split_reason: str,
    split_prose: int = 0,
    reference: ReferenceReport | None = None,
    notes: Sequence[str] = (),
) -> Preflight:
    """The pre-flight of a settled run."""
    return Preflight(
        rows=rows,
        origins=Counter(one.origin for one in used),
        tokens=tokens,
        max_len=limit.tokens,
        skipped=skipped,
        split_prose=split_prose,
        special_tokens=special_tokens,
        split_reason=split_reason,
        plan=settled.planned.plan,
        epochs=settled.planned.epochs,
        micro=settled.planned.micro,
        order=settled.planned.order,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        total_parameters=sum(p.numel() for p in model.parameters()),
        reference=reference,
        notes=notes,
    )


def without_validation(recipe: Recipe, validation: Sequence[Any]) -> list[str]:
    """A note where the recipe asks for what held-out rows decide, and none are held out."""
    asked = {"keep_best": recipe.keep_best, "early_stopping": recipe.early_stopping is not None}
    unread = [name for name, is_asked in asked.items() if is_asked]
    if validation or not unread:
        return []
    return [f"nothing is held out to tell which step is best: no effect of {' and '.join(unread)}"]


def special_tokens_in(policy: Policy, texts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Control tokens of the base that stand in (place, text), with their places; they are learnt as text."""
    return [(place, token) for place, text in texts for token in policy.chat.special_tokens_in(text)]


def fixed_sample(examples: Sequence[Any], size: int = SAMPLE) -> list[Any]:
    """At most `size` examples, the same ones in every run over the same rows, wherever they stand."""
    return sorted(examples, key=lambda example: str(example.row.key))[:size]
