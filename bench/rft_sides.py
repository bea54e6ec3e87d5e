"""Both sides of the benchmark of reinforcement fine-tuning: whole GRPO steps of this core and of TRL's GRPOTrainer.

Both train the embedded base in fp32 with the same LoRA, prompts, group size, budget, loss and reward. Time in sampling is
taken around each side's own call that samples; the rest of a step is its update, reference and grading included.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from turns import Baton

RANK, ALPHA = 16, 32


def reward(text: str) -> float:
    """The share of letters: cheap, and different enough between answers that groups have spread."""
    return sum(one.isalpha() for one in text) / max(1, len(text))


class _Timed:
    """Times calls, in CPU and wall seconds, one pair per step."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self.cpu_s: list[float] = []
        self.wall_s: list[float] = []

    def __call__(self, *args: Any, **options: Any) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        result = self._call(*args, **options)
        self.cpu_s.append(time.process_time() - cpu)
        self.wall_s.append(time.perf_counter() - wall)
        return result


def ours(spec: Mapping[str, Any], baton: Baton) -> None:
    """This core, as `dlm train --phase rft` runs it."""
    import torch

    from dlm.bases import resolve_base
    from dlm.grading import Dimension, Grade, GradeItem
    from dlm.model import load_policy
    from dlm.recipe import Recipe, RftRecipe
    from dlm.training import Prompt, make_optimizer, prepare_rft, rollouts, start_adapter, train_phase
    from dlm.training.checkpoints import Progress
    from dlm.training.planning import Sampler

    torch.set_num_threads(spec["threads"])

    class Letters:
        name, dimensions, pass_threshold = "bench:letters", (Dimension("letters", 1.0),), 0.5

        def grade(self, items: Sequence[GradeItem]) -> list[Grade]:
            return [Grade(score := reward(item.output), {"letters": score}) for item in items]

        def close(self) -> None: ...

    steps = spec["steps"]
    policy = load_policy(resolve_base("pocket"), device="cpu")
    torch.set_num_threads(spec["threads"])
    if spec["fixed"]:
        policy.chat.stop_ids = frozenset()  # every answer runs to the budget
    recipe = Recipe(
        lora_r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        learning_rate=spec["learning_rate"],
        lr_scheduler="constant",
        warmup_ratio=0.0,
        val_fraction=0.0,
        eval_every_steps=2 * len(steps),
        save_every_steps=2 * len(steps),
    )
    knobs = RftRecipe(
        steps=len(steps),
        prompts_per_step=len(steps[0]),
        group_size=spec["group_size"],
        max_new_tokens=spec["budget"],
        kl_beta=spec["beta"],
        loss_type="grpo",
        clip_high=0.2,
    )
    model = start_adapter(policy, recipe)
    prompts = [Prompt(text, "bench", number) for number, text in enumerate(p for step in steps for p in step)]
    prepared = prepare_rft(prompts, [], policy, model, recipe, knobs, Letters())
    if len(prepared.train) != len(prompts):
        raise SystemExit("some prompts are alike or too long")
    by_text = {one.row.text: one for one in prepared.train}
    ordered: list[Any] = [None] * len(prompts)
    sampler = Sampler(prepared.plan, recipe.seed)
    for number, texts in enumerate(
        steps, 1
    ):  # the loop's own order then reads them step by step as they are given
        for place, text in zip(sampler.window(number), texts, strict=True):
            ordered[place] = by_text[text]
    prepared = replace(prepared, train=ordered)
    timed = _Timed(rollouts.sample)
    rollouts.sample = timed
    watcher = _Watcher(baton, len(steps))
    baton.ready(layout=prepared.layout.value, products=prepared.products.value)
    with tempfile.TemporaryDirectory() as folder:
        optimizer = make_optimizer(model, recipe)
        train_phase(prepared, model, recipe, optimizer, Progress(), watcher, Path(folder))
    baton.done(
        sampling_cpu_s=timed.cpu_s,
        sampling_wall_s=timed.wall_s,
        tokens=watcher.tokens,
        rewards=watcher.rewards,
        prompt_ids=[list(by_text[text].prompt) for text in steps[0]],
    )


class _Watcher:
    """The loop's observer: hands the baton on after every step."""

    def __init__(self, baton: Baton, steps: int) -> None:
        self._baton, self._steps = baton, steps
        self.tokens: list[float] = []
        self.rewards: list[float] = []

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.tokens.append(values["completion_tokens_mean"])
        self.rewards.append(values["train_mean_reward"])
        self._baton.stepped(last=step == self._steps)

    def before_checkpoint(self) -> None: ...

    def checkpoint_saved(self, step: int) -> None: ...

    def stop_requested(self) -> str:
        return ""


TRL_SETTINGS: dict[str, dict[str, Any]] = {
    # fp32 as ours, no checkpointing; each way to multiply that torch offers on a CPU
    "trl_torch": {"config": {"gradient_checkpointing": False, "bf16": False}},
    "trl_onednn": {"config": {"gradient_checkpointing": False, "bf16": False}, "products": "onednn"},
    "trl_default": {"config": {}},
}


def theirs(spec: Mapping[str, Any], baton: Baton) -> None:
    """TRL's GRPOTrainer."""
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from dlm.bases import resolve_base

    datasets.disable_progress_bars()
    torch.set_num_threads(spec["threads"])
    setting = TRL_SETTINGS[spec["variant"]]
    if setting.get("products") == "onednn":
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # the setting that our side uses
    folder = resolve_base("pocket").location
    tokenizer = AutoTokenizer.from_pretrained(folder)
    steps, group, budget = spec["steps"], spec["group_size"], spec["budget"]
    rewards: list[float] = []

    def rewarded(completions: Sequence[Sequence[Mapping[str, str]]], **_: Any) -> list[float]:
        found = [reward(one[0]["content"]) for one in completions]
        rewards.append(sum(found) / len(found))
        return found

    class HandOn(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            baton.stepped(last=state.global_step == len(steps))

    with tempfile.TemporaryDirectory() as output:
        config = GRPOConfig(
            output_dir=output,
            use_cpu=True,
            per_device_train_batch_size=len(steps[0]) * group,
            num_generations=group,
            max_completion_length=budget,
            max_steps=len(steps),
            temperature=1.0,
            top_p=1.0,
            beta=spec["beta"],
            loss_type="grpo",
            epsilon=0.2,
            learning_rate=spec["learning_rate"],
            lr_scheduler_type="constant",
            shuffle_dataset=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            generation_kwargs={"min_new_tokens": budget} if spec["fixed"] else None,
            seed=42,
            **setting["config"],
        )
        texts = [text for step in steps for text in step]
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=rewarded,
            args=config,
            train_dataset=datasets.Dataset.from_list(
                [{"prompt": [{"role": "user", "content": text}]} for text in texts]
            ),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        timed = _Timed(trainer._generate)
        seen: list[Any] = []

        def generate(prompts: Any, *args: Any, **options: Any) -> Any:
            result = timed(prompts, *args, **options)
            seen.append((result[0], [len(ids) for ids in result[1]]))
            return result

        trainer._generate = generate
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(HandOn())
        baton.ready(products=setting.get("products", "torch"))
        trainer.train()
    baton.done(
        sampling_cpu_s=timed.cpu_s,
        sampling_wall_s=timed.wall_s,
        tokens=[sum(lengths) / len(lengths) for _, lengths in seen],
        rewards=rewards,
        prompt_ids=[list(map(int, ids)) for ids in seen[0][0][::group]],
        losses=[entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    )
