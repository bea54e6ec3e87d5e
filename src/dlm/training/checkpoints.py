"""Checkpoints: all that a run needs to go on as if it had never stopped.

A checkpoint is a folder `step-00000120` with the adapter in PEFT's own format (so that it can become a version as it
is), the optimiser's tensors, and the counters. Row order, learning rate and dropout are functions of the seed and the
step, so no random state has to be stored. A folder is complete or absent: it is written under another name, synced,
and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dlm.errors import StoreError
from dlm.training.world import current

__all__ = [
    "Progress",
    "discard",
    "load_adapter_of",
    "load_newest",
    "save",
    "save_adapter",
    "saved_steps",
    "step_of",
]

_PREFIX = "step-"
_PARTIAL = ".partial-"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: optimiser steps done, tokens read, seconds spent training, the best evaluation so far, and in the
    rft phase how often the grader failed on the answers so far, with its last words."""

    step: int = 0
    num_tokens: int = 0
    elapsed_s: float = 0.0
    best_step: int | None = None
    best: Mapping[str, float] = field(default_factory=dict)  # the metrics that decided it
    without_better: int = 0  # evaluations since then
    graded: int = 0
    grader_errors: int = 0
    grader_said: str = ""


def saved_steps(folder: Path) -> list[int]:
    """The steps with a complete checkpoint, ascending."""
    if not folder.is_dir():
        return []
    return sorted(
        int(entry.name.removeprefix(_PREFIX)) for entry in folder.iterdir() if entry.name.startswith(_PREFIX)
    )


def step_of(checkpoint: Path) -> int:
    """The step a checkpoint folder's name tells."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def discard(folder: Path) -> None:
    """Remove every checkpoint of a run."""
    for step in saved_steps(folder):
        shutil.rmtree(step_folder(folder, step))


def step_folder(folder: Path, step: int) -> Path:
    return folder / f"{_PREFIX}{step:08d}"


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as PEFT does (`adapter_config.json`, `adapter_model.safetensors`), without a generated card.

    Raises:
        StoreError: the disk refuses.
    """
    with _disk_faults(folder):
        model.save_pretrained(str(folder), safe_serialization=True)
        (folder / "README.md").unlink(missing_ok=True)
        # safetensors makes its files private; the weights are as readable as what stands beside them
        (folder / "adapter_model.safetensors").chmod((folder / "adapter_config.json").stat().st_mode & 0o777)


def save(
    folder: Path,
    model: Any,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    *,
    keep_last: int,
    best: int | None = None,
) -> Path:
    """Write a checkpoint atomically, then remove all but the newest `keep_last` and that of step `best`.

    Raises:
        StoreError: the disk refuses; the checkpoints before stay.
    """
    with _disk_faults(folder):
        target = _save(folder, model, optimizer, progress)
        for step in saved_steps(folder)[:-keep_last]:
            if step != best:
                shutil.rmtree(step_folder(folder, step))
        return target


def _save(folder: Path, model: Any, optimizer: torch.optim.Optimizer, progress: Progress) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(leftover)
    partial = folder / f"{_PARTIAL}{progress.step}"
    partial.mkdir()
    save_adapter(model, partial)
    save_file(_optimizer_tensors(model, optimizer), str(partial / "optimizer.safetensors"))
    (partial / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
    for path in (*partial.iterdir(), partial):
        _sync(path)
    target = step_folder(folder, progress.step)
    partial.rename(target)
    _sync(folder)
    return target


def load_newest(
    folder: Path, model: Any, optimizer: torch.optim.Optimizer, warn: Callable[[str], None]
) -> Progress:
    """Put the newest readable checkpoint into place; returns where it stood, or step 0 when there is none.

    A damaged checkpoint is spoken of and removed, so that the run can write that step anew. Of several processes the main
    one goes first; all of them read the same folder.
    """
    world = current()
    if world.is_main:
        progress = _load_newest(folder, model, optimizer, warn)
    world.wait()
    if not world.is_main:
        progress = _load_newest(folder, model, optimizer, warn)
    world.wait()
    return progress


def _load_newest(
    folder: Path, model: Any, optimizer: torch.optim.Optimizer, warn: Callable[[str], None]
) -> Progress:
    for step in reversed(saved_steps(folder)):
        checkpoint = step_folder(folder, step)
        try:
            return _load(checkpoint, model, optimizer)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            warn(f"the checkpoint of step {step} is damaged ({error}): the one before it is used")
            optimizer.state.clear()
            shutil.rmtree(checkpoint)
    return Progress()


def _load(checkpoint: Path, model: Any, optimizer: torch.optim.Optimizer) -> Progress:
    progress = Progress(**json.loads((checkpoint / "progress.json").read_text(encoding="utf-8")))
    tensors = load_file(str(checkpoint / "optimizer.safetensors"))
    fused = optimizer.defaults.get("fused")
    moments = {
        parameter: {
            # the fused kernel counts on the device, the others on the CPU
            "step": tensors[f"{name}:step"].to(parameter.device if fused else "cpu"),
            "exp_avg": tensors[f"{name}:exp_avg"].to(parameter.device),
            "exp_avg_sq": tensors[f"{name}:exp_avg_sq"].to(parameter.device),
        }
        for name, parameter in _trainable(model)
        if tensors  # none yet, where every round so far had nothing to learn from
    }
    _load_adapter(checkpoint, model)
    optimizer.state.update(moments)
    return progress


def load_adapter_of(folder: Path, step: int, model: Any) -> None:
    """Put the adapter of one checkpoint into the model, to publish it instead of the last one's.

    Raises:
        StoreError: the checkpoint is not there, or damaged.
    """
    checkpoint = step_folder(folder, step)
    try:
        _load_adapter(checkpoint, model)
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise StoreError(
            f"the checkpoint of step {step} cannot be read: {error}",
            where=str(checkpoint),
            next_step="dlm checkpoints DOCUMENT lists those that are there",
        ) from error


def _load_adapter(checkpoint: Path, model: Any) -> None:
    adapter = load_file(str(checkpoint / "adapter_model.safetensors"))
    unexpected = set_peft_model_state_dict(model, adapter).unexpected_keys
    if unexpected:
        raise KeyError(f"unexpected tensor {unexpected[0]}")


def _trainable(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _optimizer_tensors(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}:{part}": tensor.detach().cpu().clone()
        for name, parameter in _trainable(model)
        for part, tensor in optimizer.state[parameter].items()
    }


@contextmanager
def _disk_faults(folder: Path) -> Iterator[None]:
    """Turn faults of the disk into `StoreError`; safetensors reports its own as something else than `OSError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"the weights cannot be written: {error}",
            where=str(folder),
            next_step="free some space (dlm prune DOCUMENT does), then dlm train DOCUMENT --resume",
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
