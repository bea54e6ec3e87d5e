"""Which pretrained models a document can start from, and the knobs that suit each.

`base_model` in a header is a short name (`pocket`), a Hub model (`hf:org/name`) or a folder (`./my-model`). Here it
is only resolved to a place; whether the model can be loaded is the model room's to say.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dlm.errors import BaseModelError
from dlm.recipe import Choice, nearest

__all__ = ["BASE_NAMES", "POCKET", "BaseSpec", "resolve_base"]

POCKET = "pocket"
_HUB = {
    "smollm2-135m": ("HuggingFaceTB/SmolLM2-135M-Instruct", 135),
    "smollm2-360m": ("HuggingFaceTB/SmolLM2-360M-Instruct", 362),
    "smollm2-1.7b": ("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1711),
    "qwen2.5-0.5b": ("Qwen/Qwen2.5-0.5B-Instruct", 494),
    "qwen2.5-1.5b": ("Qwen/Qwen2.5-1.5B-Instruct", 1544),
    "qwen3-0.6b": ("Qwen/Qwen3-0.6B", 596),
    "qwen3-1.7b": ("Qwen/Qwen3-1.7B", 1721),
}  # short name -> Hub id, millions of parameters
BASE_NAMES = (POCKET, *_HUB)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_CHANGE_BASE = "write base_model: pocket, one of the other names, hf:org/name, or ./folder"


@dataclass(frozen=True)
class BaseSpec:
    """A base as named, and where it is: `location` is a folder's path, or a Hub id when `kind` is hub.

    `defaults` maps knobs of the recipe to the values that suit this base, with their reasons.
    """

    name: str
    kind: Literal["embedded", "hub", "folder"]
    location: str
    defaults: Mapping[str, Choice[Any]]
    notes: str = ""


def resolve_base(name: str, document_folder: Path | None = None) -> BaseSpec:
    """Find the base that a document names; folders are relative to the document's.

    Raises:
        BaseModelError: an unknown name (the nearest is suggested), an impossible Hub id, or a folder that is absent
            or holds no model.
    """
    if name == POCKET:
        folder = Path(__file__).parent / "pocket"
        return BaseSpec(name, "embedded", str(folder), _POCKET_DEFAULTS, "ships with dlm; works offline")
    if name in _HUB:
        hub_id, millions = _HUB[name]
        return BaseSpec(
            name, "hub", hub_id, _defaults(millions), f"{millions}M parameters, from the Hugging Face Hub"
        )
    if name.startswith("hf:"):
        hub_id = name.removeprefix("hf:")
        if not _HUB_ID.fullmatch(hub_id) or ".." in hub_id:
            raise BaseModelError(
                f"{name!r} is no model on the Hub",
                expected="hf:org/name",
                next_step="write base_model: hf:org/name",
            )
        return BaseSpec(name, "hub", hub_id, _defaults(None), "from the Hugging Face Hub")
    if _looks_like_a_folder(name):
        return _folder(name, document_folder)
    raise _unknown(name, document_folder)


def _looks_like_a_folder(name: str) -> bool:
    return name in {".", ".."} or name.startswith(("./", "../", "/", "~"))


def _folder(name: str, document_folder: Path | None) -> BaseSpec:
    folder = Path(os.path.abspath((document_folder or Path()) / os.path.expanduser(name)))
    if not folder.is_dir():
        raise BaseModelError(
            f"there is no folder {name}",
            expected="a folder with a model",
            found=str(folder),
            next_step=_CHANGE_BASE,
        )
    config_file = folder / "config.json"
    if not config_file.is_file():
        adapter = (folder / "adapter_config.json").is_file()
        raise BaseModelError(
            f"{name} holds {'an adapter, not a base model' if adapter else 'no model'}",
            expected=f"{config_file}, as save_pretrained writes it",
            next_step="export a merged model with: dlm export DOCUMENT --merged --to DIR"
            if adapter
            else _CHANGE_BASE,
        )
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"{config_file} cannot be read: {error}", next_step="copy the model again"
        ) from None
    if not isinstance(config, dict):
        raise BaseModelError(f"{config_file} holds no model configuration", next_step="copy the model again")
    return BaseSpec(name, "folder", str(folder), _defaults(_millions(config)), "a local folder")


def _unknown(name: str, document_folder: Path | None) -> BaseModelError:
    if name and ((document_folder or Path()) / name).is_dir():
        hint = f"./{name}"
    elif "/" in name:
        hint = f"hf:{name}"
    else:
        hint = nearest(name.lower(), BASE_NAMES)
    return BaseModelError(
        f"unknown base {name!r}",
        expected=f"{', '.join(BASE_NAMES)}, hf:org/name, or ./folder",
        next_step=f"write base_model: {hint}" if hint else _CHANGE_BASE,
    )


def _millions(config: Mapping[str, Any]) -> float | None:
    """A rough size in millions of parameters (embedding + 12·width² a layer); None when the keys are unfamiliar."""

    def number(*keys: str) -> int:
        return next((config[key] for key in keys if isinstance(config.get(key), int)), 0)

    width, layers = (
        number("hidden_size", "n_embd", "d_model"),
        number("num_hidden_layers", "n_layer", "num_layers"),
    )
    if not width or not layers:
        return None
    return (number("vocab_size") * width + 12 * layers * width**2) / 1e6


def _choices(size: str, **values: float) -> Mapping[str, Choice[Any]]:
    """The knobs whose best value follows from the size of the base."""
    reasons = {
        "learning_rate": f"a LoRA on {size} learns best near this rate",
        "lora_r": f"enough room for a document's answers on {size}",
        "lora_alpha": "twice the rank, the usual scale",
        "lora_dropout": "a document is meant to be learnt as it stands; dropout slows that",
        "min_steps": f"{size} needs about so many steps before ten short answers are learnt",
        "num_epochs": f"passes that {size} needs; min_steps adds more where the document is short",
    }
    return {name: Choice(value, reasons[name]) for name, value in values.items()}


_POCKET_DEFAULTS = {
    **_choices(
        "a base of a few million parameters",
        learning_rate=5e-3,
        lora_r=16,
        lora_alpha=32,
        lora_dropout=0.0,
        min_steps=150,
        num_epochs=20,
    ),
    **{
        f"preference.{name}": Choice(value, "learns 40 brevity pairs and keeps its facts (bench/brevity.py)")
        for name, value in {"learning_rate": 2e-4, "num_epochs": 5, "sft_weight": 0.5}.items()
    },
    **{
        f"reward.{name}": Choice(
            value, "20 brevity pairs teach it to rank 20 others; at 1e-4 it learns next to nothing"
        )
        for name, value in {"learning_rate": 3e-3, "num_epochs": 3}.items()
    },
    "rft.learning_rate": Choice(2e-3, "twelve rounds teach it to answer briefly (bench/rft_learning.py)"),
}


def _defaults(millions: float | None) -> Mapping[str, Choice[Any]]:
    """The defaults of a base by its size; those of a 1B model when the size is not known."""
    if millions is not None and millions < 20:
        return _POCKET_DEFAULTS
    rate, steps, size = 2e-4, 60, "a base of 1B parameters or more"
    if millions is None:
        size = "a base of unknown size"
    elif millions < 250:
        rate, steps, size = 1e-3, 120, "a base of 100M to 250M parameters"
    elif millions < 1000:
        rate, steps, size = 5e-4, 80, "a base of 250M to 1B parameters"
    return _choices(
        size, learning_rate=rate, lora_r=16, lora_alpha=32, lora_dropout=0.0, min_steps=steps, num_epochs=3
    )
