"""The same weights and token ids through TRL's trainers and through this core, step by step.

TRL's own code does its whole part: its trainer is constructed, prepares the dataset, collates the rows and computes the
loss. The rows reach it as text of a tokenizer whose every word is one token (`t17` is token 17), so that both sides see
the very same ids. Our side is what a run uses: an objective on the plain layout.

Both models start from one LoRA that is not zero. TRL's model takes the steps; before a comparison its weights are
copied into ours. Beside that, a third model takes the same steps with our loss alone: how far it drifts is reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # ORPO and SimPO live in trl.experimental

import datasets
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from dlm.recipe import PreferenceRecipe, RewardRecipe
from dlm.training.layout import Layout
from dlm.training.losses import reward_losses
from dlm.training.objectives import Objective, PreferenceObjective, RewardObjective, SftObjective
from dlm.training.pairs import Pair, PairExample
from dlm.training.policy_gradient import (
    GroupLoss,
    group_advantages,
    policy_gradient_denominator,
    policy_gradient_loss_sum,
)

datasets.disable_progress_bars()

END, PAD, VOCABULARY = 257, 258, 259
COMPARED_STEPS = (1, 10, 50)
LEARNING_RATE = 5e-4
N_ROWS, ROWS_PER_STEP, SAMPLES = 8, 4, 4

Loss = Callable[[Sequence[int]], Tensor]
"""Places of the rows of one step → the loss of that step, a scalar with gradient."""


@dataclass(frozen=True)
class Side:
    """One side's way to a loss, and what it would log about the step whose loss it computed last."""

    loss: Loss
    metrics: Callable[[], Mapping[str, float]] = dict


OUR_NAMES = {
    "log_odds_chosen": "log_odds_ratio",  # what TRL calls log_odds_ratio is the logarithm of its sigmoid
    "accuracy": "rewards/accuracies",  # the reward trainer's name for it
    "margin": "rewards/margins",
}


@dataclass(frozen=True)
class Case:
    """One loss: TRL's way and ours to compute it, from a model each."""

    name: str
    theirs: Callable[[Any, Path], Side]
    ours: Callable[[Any], Side]
    scorer: bool = False  # a scalar head instead of a language model's
    rows_per_step: int = ROWS_PER_STEP
    n_rows: int = N_ROWS
    differs: frozenset[str] = frozenset()  # metrics of one name and two meanings


@dataclass
class Comparison:
    """What came out of a case. Relative figures are ‖ours − theirs‖ / ‖theirs‖ over all trainable weights."""

    name: str
    loss: dict[int, float] = field(default_factory=dict)  # step → TRL's loss
    loss_gap: dict[int, float] = field(default_factory=dict)  # step → |Δ|
    gradient_gap: dict[int, float] = field(default_factory=dict)  # step → relative
    metric_gap: dict[str, float] = field(
        default_factory=dict
    )  # name → largest |Δ| / max(1, |TRL's|) of the steps
    metrics: dict[str, float] = field(default_factory=dict)  # TRL's, at the last compared step
    drift_loss: float = 0.0  # largest |Δ| over free-running steps
    drift_weights: float = 0.0  # after the last of them, relative to how far TRL's weights have moved


# Rows and models.


@dataclass(frozen=True)
class SftTree:
    """A supervised row: one answer."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]


def pairs(prompt_tokens: tuple[int, int] = (3, 9)) -> list[PairExample]:
    """Pairs of random tokens; lengths differ between rows and between the sides of a row."""
    random = torch.Generator().manual_seed(7)

    def tokens(least: int, most: int) -> tuple[int, ...]:
        count = int(torch.randint(least, most + 1, (), generator=random))
        return tuple(torch.randint(0, 256, (count,), generator=random).tolist())

    return [
        PairExample(
            Pair("", f"chosen {i}", f"rejected {i}", "rows", i),
            tokens(*prompt_tokens),
            (*tokens(1, 8), END),
            (*tokens(1, 8), END),
        )
        for i in range(N_ROWS)
    ]


def text(ids: Sequence[int]) -> str:
    return " ".join(f"t{i}" for i in ids)


@cache
def tokenizer() -> Any:
    """One word, one token; nothing is added."""
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="t0", eos_token=f"t{END}", pad_token=f"t{PAD}"
    )


def tiny_model(scorer: bool) -> Any:
    """A Llama of a few thousand weights under a LoRA that already does something."""
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
        num_labels=1,
        initializer_range=0.2,  # wide enough that predictions differ from uniform
    )
    base = LlamaForSequenceClassification(config) if scorer else LlamaForCausalLM(config)
    lora = LoraConfig(
        r=4,
        lora_alpha=12,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="SEQ_CLS" if scorer else "CAUSAL_LM",
    )
    model = get_peft_model(base, lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model.train()


def trainable(model: Any) -> dict[str, Tensor]:
    """The policy's own weights by name; TRL keeps a frozen copy of the adapter, named `ref`, in the same model."""
    return {
        name: weight
        for name, weight in model.named_parameters()
        if ".default." in name and ("lora_" in name or "modules_to_save" in name)
    }


# TRL's side.


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    """Arguments that every trainer gets: fp32 on the CPU, nothing dropped, nothing recomputed, nothing reported."""
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "per_device_train_batch_size": N_ROWS,
        **more,
    }


def logged(trainer: Any) -> dict[str, float]:
    """What a trainer last kept for its log, under our names."""
    kept = trainer._stored_metrics if hasattr(trainer, "_stored_metrics") else trainer._metrics
    values = {name: float(series[-1]) for name, series in kept["train"].items()}
    return values | {ours: values[name] for name, ours in OUR_NAMES.items() if name in values}


def collated(trainer: Any, call: Callable[[Any, Any], Tensor] | None = None) -> Side:
    """The loss of a trainer over rows of the dataset that it prepared."""
    compute = call or trainer.compute_loss
    rows = list(trainer.train_dataset)

    def loss(places: Sequence[int]) -> Tensor:
        inputs = trainer.data_collator([rows[place] for place in places])
        value: Tensor = compute(trainer.model, inputs)
        return value

    return Side(loss, partial(logged, trainer))


def dataset(examples: Sequence[PairExample]) -> datasets.Dataset:
    return datasets.Dataset.from_list(
        [
            {
                "prompt": text(row.prompt),
                "chosen": " " + text(row.chosen),
                "rejected": " " + text(row.rejected),
            }
            for row in examples
        ]
    )


def trl_sft(model: Any, folder: Path) -> Side:
    rows = [{"prompt": text(row.prompt), "completion": " " + text(row.chosen)} for row in pairs()]
    return collated(
        SFTTrainer(
            model=model,
            args=SFTConfig(**settings(folder, completion_only_loss=True)),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer(),
        )
    )


def trl_dpo(model: Any, folder: Path, **config: Any) -> Side:
    return collated(
        DPOTrainer(
            model=model,
            args=DPOConfig(**settings(folder, **config)),
            train_dataset=dataset(pairs()),
            processing_class=tokenizer(),
        )
    )


def trl_simpo(model: Any, folder: Path, *, beta: float, gamma: float) -> Side:
    config = CPOConfig(
        **settings(
            folder,
            loss_type="simpo",
            cpo_alpha=0.0,
            beta=beta,
            simpo_gamma=gamma,
            remove_unused_columns=False,
        )
    )
    return collated(
        CPOTrainer(model=model, args=config, train_dataset=dataset(pairs()), processing_class=tokenizer())
    )


def trl_orpo(model: Any, folder: Path, *, alpha: float, prompt_tokens: tuple[int, int], whole: bool) -> Side:
    trainer = ORPOTrainer(
        model=model,
        args=ORPOConfig(**settings(folder, beta=alpha, remove_unused_columns=False)),
        train_dataset=dataset(pairs(prompt_tokens)),
        processing_class=tokenizer(),
    )

    def odds_ratio_term(model: Any, inputs: Any) -> Tensor:
        chosen, rejected = trainer.concatenated_forward(model, inputs)[:2]
        losses: Tensor = trainer.odds_ratio_loss(chosen, rejected)[0]
        return -losses.mean()

    return collated(trainer, None if whole else odds_ratio_term)


MARGINS = (0.0, 0.5, 1.0, 0.25, 0.0, 2.0, 0.125, 0.75)


def trl_reward(model: Any, folder: Path, *, center: float | None, margins: bool) -> Side:
    rows = dataset(pairs())
    if margins:
        rows = rows.add_column("margin", list(MARGINS))
    return collated(
        RewardTrainer(
            model=model,
            args=RewardConfig(**settings(folder, center_rewards_coefficient=center)),
            train_dataset=rows,
            processing_class=tokenizer(),
        )
    )


@dataclass(frozen=True)
class Group:
    """A prompt with its samples and their rewards."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    rewards: tuple[float, ...]


def rollouts() -> list[Group]:
    """Two groups of fixed samples; the answers of one pair row in four make a group."""
    rows = pairs()
    rewards = [(0.0, 1.0, 0.5, 1.0), (2.0, -1.0, 0.0, 0.25)]
    answers = [answer for row in rows for answer in row.branches]
    return [
        Group(rows[g].prompt, tuple(answers[g * SAMPLES : (g + 1) * SAMPLES]), rewards[g])
        for g in range(len(rewards))
    ]


GRPO = {"beta": 0.05, "clip_low": 0.2, "clip_high": 0.28}
MAX_LENGTH = 16


def trl_grpo(model: Any, folder: Path, *, loss_type: GroupLoss) -> Side:
    """Fixed samples and rewards; TRL makes advantages, old and reference log-probs of them itself.

    `num_iterations=2` is what makes it keep the old log-probs; the samples then serve every step.
    """
    groups = rollouts()
    answers = [branch for group in groups for branch in group.branches]
    rewards = [reward for group in groups for reward in group.rewards]

    def samples(prompts: list[str], trainer: Any) -> dict[str, Any]:
        return {
            "prompt_ids": [list(group.prompt) for group in groups for _ in group.branches],
            "completion_ids": [list(answer) for answer in answers],
            "logprobs": [[0.0] * len(answer) for answer in answers],  # the sampler's own; read with vLLM only
        }

    def reward(completions: list[str], **_: Any) -> list[float]:
        return rewards

    config = GRPOConfig(
        **settings(
            folder,
            loss_type=loss_type,
            beta=GRPO["beta"],
            epsilon=GRPO["clip_low"],
            epsilon_high=GRPO["clip_high"],
            num_generations=SAMPLES,
            max_completion_length=MAX_LENGTH,
            num_iterations=2,
            scale_rewards="none" if loss_type == "dr_grpo" else "group",
            use_bias_correction_kl=False,  # TRL's default multiplies the KL term by the ratio (arXiv 2512.02556)
        )
    )
    prompts = [{"prompt": text(group.prompt)} for group in groups]
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=datasets.Dataset.from_list(prompts),
        processing_class=tokenizer(),
        rollout_func=samples,
    )
    trainer.current_gradient_accumulation_steps = 1  # set by the loop that is not run here
    inputs = trainer._generate_and_score_completions([prompt for prompt in prompts for _ in range(SAMPLES)])
    return Side(lambda _: trainer.compute_loss(trainer.model, inputs), partial(logged, trainer))


# Our side.


def normalised(objective: Objective[Any], examples: Sequence[Any], model: Any) -> Side:
    """The loss and metrics of a step whose rows are the whole window."""
    latest: dict[str, float] = {}

    def loss(places: Sequence[int]) -> Tensor:
        rows = [examples[place] for place in places]
        counts, outcome = objective.counts(rows), objective.forward(model, rows)
        for unit, sums in outcome.sums.items():
            latest.update({name: float(total) / counts[unit] for name, total in sums.items()})
        return torch.stack([part / counts[unit] for unit, part in outcome.loss.items()]).sum()

    return Side(loss, lambda: latest)


def plain(model: Any) -> Layout:
    return Layout.of("plain", model, PAD, "cpu")


def our_sft(model: Any) -> Side:
    rows = [SftTree(row.prompt, (row.chosen,)) for row in pairs()]
    return normalised(SftObjective(plain(model)), rows, model)


def our_preference(model: Any, prompt_tokens: tuple[int, int] = (3, 9), **knobs: Any) -> Side:
    """The reference is the adapter that the run starts from."""
    rows, layout, recipe = pairs(prompt_tokens), plain(model), PreferenceRecipe(**knobs)
    reference = {}
    if recipe.method == "dpo":
        with torch.no_grad():
            sums = layout.scores(model, rows).sums().view(-1, 2).tolist()
        reference = {
            row.pair.key: (chosen, rejected) for row, (chosen, rejected) in zip(rows, sums, strict=True)
        }
    return normalised(PreferenceObjective(layout, recipe, reference), rows, model)


def our_odds_ratio_term(model: Any, *, alpha: float) -> Side:
    rows = pairs()
    objective = PreferenceObjective(plain(model), PreferenceRecipe(method="orpo", alpha=alpha), {})

    def loss(places: Sequence[int]) -> Tensor:
        return objective.forward(model, [rows[place] for place in places]).loss["pairs"] / len(places)

    return Side(loss)


def our_reward(model: Any, *, center: float) -> Side:
    layout = Layout("plain", PAD, "cpu", headless=True)
    return normalised(RewardObjective(layout, RewardRecipe(center=center)), pairs(), model)


def our_reward_with_margins(model: Any, *, center: float) -> Side:
    """No phase trains with margins yet, so the loss is called as it is."""
    rows, layout = pairs(), Layout("plain", PAD, "cpu", headless=True)

    def loss(places: Sequence[int]) -> Tensor:
        states = layout.last_states(model, [rows[place] for place in places])
        chosen, rejected = model.get_base_model().score(states).view(-1, 2).unbind(1)
        margin = torch.tensor([MARGINS[place] for place in places])
        return reward_losses(chosen, rejected, margin=margin, center=center).mean()

    return Side(loss)


def our_grpo(model: Any, *, loss_type: GroupLoss) -> Side:
    groups, layout = rollouts(), plain(model)
    with torch.no_grad():
        start = layout.scores(model, groups)
    rewards = torch.tensor([group.rewards for group in groups])
    advantages = group_advantages(rewards, scale_std=loss_type != "dr_grpo").flatten()
    denominator = policy_gradient_denominator(start.lengths.tolist(), loss_type, max_length=MAX_LENGTH)
    latest: dict[str, float] = {}

    def loss(_: Sequence[int]) -> Tensor:
        outcome = policy_gradient_loss_sum(
            layout.scores(model, groups).logprobs,
            start.logprobs,
            advantages,
            start.lengths,
            loss_type=loss_type,
            ref_logprobs=start.logprobs,
            **GRPO,
        )
        n_tokens = int(start.lengths.sum())
        latest["kl"] = float(outcome.kl) / n_tokens
        latest["clip_ratio/low_mean"] = float(outcome.clipped_low) / n_tokens
        latest["clip_ratio/high_mean"] = float(outcome.clipped_high) / n_tokens
        return outcome.loss_sum / denominator

    return Side(loss, lambda: latest)


def dpo_case(name: str, loss_type: str | list[str], ours: dict[str, Any], **theirs: Any) -> Case:
    return Case(
        name,
        partial(trl_dpo, loss_type=loss_type, beta=ours["beta"], **theirs),
        partial(our_preference, method="dpo", **ours),
    )


ONE_TOKEN = (1, 1)
MEAN_LOGPS = frozenset({"logps/chosen", "logps/rejected"})  # means per token there, sums here and in DPO
CASES = [
    Case("sft", trl_sft, our_sft),
    dpo_case("dpo sigmoid", "sigmoid", {"beta": 0.5}),
    # TRL's sigmoid has no label smoothing; its `aot` has, and is the same loss on one pair at a time
    Case(
        "dpo sigmoid, smoothed",
        partial(trl_dpo, loss_type="aot", beta=0.5, label_smoothing=0.2),
        partial(our_preference, method="dpo", beta=0.5, label_smoothing=0.2),
        rows_per_step=1,
    ),
    dpo_case("dpo hinge", "hinge", {"beta": 0.15, "loss_type": "hinge"}),
    dpo_case("dpo ipo", "ipo", {"beta": 0.25, "loss_type": "ipo"}),
    dpo_case(
        "dpo robust",
        "robust",
        {"beta": 0.5, "loss_type": "robust", "label_smoothing": 0.2},
        label_smoothing=0.2,
    ),
    dpo_case(
        "dpo sigmoid + sft",
        ["sigmoid", "sft"],
        {"beta": 0.5, "sft_weight": 0.25},
        loss_weights=[1.0, 0.25],
    ),
    # TRL takes ORPO's NLL over prompt and answer, we over the answer; behind a prompt of one token both are the same
    Case(
        "orpo, prompts of one token",
        partial(trl_orpo, alpha=0.3, prompt_tokens=ONE_TOKEN, whole=True),
        partial(our_preference, prompt_tokens=ONE_TOKEN, method="orpo", alpha=0.3),
        differs=MEAN_LOGPS,
    ),
    Case(
        "orpo, odds-ratio term",
        partial(trl_orpo, alpha=0.3, prompt_tokens=(3, 9), whole=False),
        partial(our_odds_ratio_term, alpha=0.3),
    ),
    Case(
        "simpo",
        partial(trl_simpo, beta=2.0, gamma=0.5),
        partial(our_preference, method="simpo", beta=2.0, gamma=0.5),
        differs=MEAN_LOGPS | {"nll_loss"},  # TRL's is the weighted term of CPO, switched off here
    ),
    Case(
        "reward",
        partial(trl_reward, center=None, margins=False),
        partial(our_reward, center=0.0),
        scorer=True,
    ),
    Case(
        "reward, centred",
        partial(trl_reward, center=0.05, margins=False),
        partial(our_reward, center=0.05),
        scorer=True,
    ),
    Case(
        "reward, margins",
        partial(trl_reward, center=0.05, margins=True),
        partial(our_reward_with_margins, center=0.05),
        scorer=True,
    ),
    *(
        Case(loss_type, partial(trl_grpo, loss_type=loss_type), partial(our_grpo, loss_type=loss_type))
        for loss_type in ("grpo", "dapo", "dr_grpo")
    ),
]


# The comparison.


def gradients(loss: Tensor, weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(weights.values()))])


def apply_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def copy_weights(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in target.items():
            weight.copy_(source[name])


def flat(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in weights.values()])


def compare(
    case: Case,
    folder: Path,
    steps: Sequence[int] = COMPARED_STEPS,
    learning_rate: float = LEARNING_RATE,
) -> Comparison:
    """Run a case for `max(steps)` steps of AdamW and say how far apart the two sides are."""
    their_model, our_model, free_model = (tiny_model(case.scorer) for _ in range(3))
    their_side = case.theirs(their_model, folder)
    our_side, free_side = case.ours(our_model), case.ours(free_model)
    theirs, ours, free = trainable(their_model), trainable(our_model), trainable(free_model)
    start = flat(theirs)
    optimizers = [
        torch.optim.AdamW(weights.values(), lr=learning_rate, weight_decay=0.0) for weights in (theirs, free)
    ]
    found = Comparison(case.name)
    for step in range(1, max(steps) + 1):
        rows = [(step * case.rows_per_step + i) % case.n_rows for i in range(case.rows_per_step)]
        if step in steps:
            copy_weights(theirs, ours)
            loss, expected = our_side.loss(rows), their_side.loss(rows)
            wanted = gradients(expected, theirs)
            found.loss[step] = expected.item()
            found.loss_gap[step] = abs(loss.item() - expected.item())
            found.gradient_gap[step] = ((gradients(loss, ours) - wanted).norm() / wanted.norm()).item()
            found.metrics = dict(their_side.metrics())
            for name, value in our_side.metrics().items():
                if name in found.metrics and name not in case.differs:
                    gap = abs(value - found.metrics[name]) / max(1.0, abs(found.metrics[name]))
                    found.metric_gap[name] = max(found.metric_gap.get(name, 0.0), gap)
        moved = apply_step(optimizers[0], their_side.loss(rows))
        drifted = apply_step(optimizers[1], free_side.loss(rows))
        found.drift_loss = max(found.drift_loss, abs(moved - drifted))
    end = flat(theirs)
    found.drift_weights = ((flat(free) - end).norm() / (end - start).norm()).item()
    return found
