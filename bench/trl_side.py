"""TRL's side of the training benchmark: its own trainers, dataset preparation, collators and loop.

The rows reach it as text of a tokenizer whose every word is one token; that it made the very ids of them is checked.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shapes import as_text, load_base, lora, set_adapter, torch_type, words_tokenizer
from turns import Baton, resident_mb

BETA = 0.1
_TUNED = {"gradient_checkpointing": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "trl_best": {"dtype": "bf16", "config": _TUNED},  # products in bf16 by autocast, TRL's default
    "trl_fp32": {"dtype": "fp32", "config": {**_TUNED, "bf16": False}, "products": "onednn"},
    "trl_packed": {"dtype": "bf16", "config": {**_TUNED, "padding_free": True, "max_length": None}},
    "trl_default": {"dtype": "fp32", "config": {}},  # TRL loads a base in fp32 and checkpoints every layer
}


def run(spec: Mapping[str, Any], baton: Baton) -> None:
    """Train as the spec says, step by step as the baton allows."""
    os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "TQDM_DISABLE": "1"}  # ORPO lives in trl.experimental
    import torch
    from kernels import ceiling_gflops
    from transformers import PrinterCallback

    torch.set_num_threads(spec["threads"])
    setting = SETTINGS[spec["variant"]]
    if setting.get("products") == "onednn":
        torch.backends.mkldnn.matmul.fp32_precision = (
            "bf16"  # the setting that our side uses, see acceleration.py
        )
    model = load_base(Path(spec["folder"]), spec["method"], setting["dtype"])
    before = resident_mb()  # of the base, TRL not yet loaded
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(model, spec, setting["config"], folder)
        _require_same_ids(trainer.train_dataset, spec)
        set_adapter(trainer.model, spec["seed"])
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_hand_on(baton, len(spec["steps"])))
        products = torch_type("fp32" if setting["config"].get("bf16") is False else "bf16")
        ceiling = ceiling_gflops(model.config, products, spec["device"]) if spec["timed"] else 0.0
        baton.ready(rss_before_mb=before, products=setting.get("products", "torch"))
        trainer.train()
        if spec["timed"]:
            ceiling = max(ceiling, ceiling_gflops(model.config, products, spec["device"]))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    baton.done(losses=losses, ceiling_gflops=ceiling)


def _trainer(model: Any, spec: Mapping[str, Any], config: Mapping[str, Any], folder: str) -> Any:
    import datasets
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    datasets.disable_progress_bars()
    method = spec["method"]
    trainers: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "sft": (SFTTrainer, SFTConfig, {}),
        "dpo": (
            DPOTrainer,
            DPOConfig,
            {"beta": BETA, "precompute_ref_log_probs": spec["variant"] != "trl_default"},
        ),
        "orpo": (ORPOTrainer, ORPOConfig, {"beta": BETA}),
        "reward": (RewardTrainer, RewardConfig, {}),
    }
    trainer, config_type, own = trainers[method]
    settings = {
        "output_dir": folder,
        "use_cpu": spec["device"] == "cpu",
        "per_device_train_batch_size": len(spec["steps"][0]),
        "max_steps": len(spec["steps"]),
        "train_sampling_strategy": "sequential",  # which rows meet in a step is the benchmark's to say
        "learning_rate": spec["learning_rate"],
        "lr_scheduler_type": "constant",
        "max_length": 2048,
        "logging_steps": 1,  # the other side logs every step
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": spec["seed"],
        **own,
        **config,
    }
    return trainer(
        model=model,
        args=config_type(**settings),
        train_dataset=datasets.Dataset.from_list([_as_texts(row) for rows in spec["steps"] for row in rows]),
        processing_class=words_tokenizer(model.config.vocab_size),
        peft_config=lora(method),
    )


def _as_texts(row: Sequence[Any]) -> dict[str, str]:
    prompt, branches = row
    names = ("completion",) if len(branches) == 1 else ("chosen", "rejected")
    answers = {name: " " + as_text(branch) for name, branch in zip(names, branches, strict=True)}
    return {"prompt": as_text(prompt), **answers}


def _require_same_ids(dataset: Any, spec: Mapping[str, Any]) -> None:
    """TRL's prepared rows must hold the ids that the other side trains on."""
    columns = {
        "sft": ("input_ids",),
        "dpo": ("chosen_ids", "rejected_ids"),
        "orpo": ("chosen_input_ids", "rejected_input_ids"),
        "reward": ("chosen_ids", "rejected_ids"),
    }[spec["method"]]
    expected = [row for rows in spec["steps"] for row in rows]
    for (prompt, branches), found in zip(expected, dataset, strict=True):
        context = found.get("prompt_ids", []) if spec["method"] == "dpo" else []
        for branch, column in zip(branches, columns, strict=True):
            if [*context, *found[column]] != [*prompt, *branch]:
                raise SystemExit(f"TRL made other ids of a row: {found[column]} from {[*prompt, *branch]}")


def _hand_on(baton: Baton, steps: int) -> Any:
    from transformers import TrainerCallback

    class HandOn(TrainerCallback):  # type: ignore[misc]
        """Hands the baton on after every step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            baton.stepped(last=state.global_step == steps)

    return HandOn()
