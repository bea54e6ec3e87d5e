"""From a base's name to a folder that is fit to be loaded.

Whatever is wrong with the folder is found here, before any weight is read, and said in words: a base may be
half-downloaded, doctored, of another kind, or bring code of its own, and none of that may end in a traceback.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from huggingface_hub import errors as hub_errors
from huggingface_hub import snapshot_download
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from dlm.bases import BaseSpec
from dlm.errors import BaseModelError

__all__ = [
    "LIBRARY_FAULTS",
    "ModelFolder",
    "find_folder",
    "inspect_folder",
    "read_json",
    "readable_faults",
    "tensor_shapes",
]

LIBRARY_FAULTS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    ImportError,
    safetensors.SafetensorError,
    hub_errors.StrictDataclassError,
)
"""What transformers, tokenizers, PEFT and safetensors raise on a folder they cannot use; they have no error of
their own to catch. Caught only around calls that read such a folder."""

_DOWNLOADED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
_LONGEST_CONTEXT = 1 << 30  # far beyond any model; tables of positions are made to this size
_OTHER_BASE = "name another base in the document's header (base_model: pocket ships with dlm)"


@contextmanager
def readable_faults(what: str, next_step: str = _OTHER_BASE) -> Iterator[None]:
    """Turn a library's complaint about a folder into a BaseModelError that begins with `what`."""
    try:
        yield
    except LIBRARY_FAULTS as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BaseModelError(f"{what}: {first}", next_step=next_step) from None


@dataclass(frozen=True)
class ModelFolder:
    """A folder that passed inspection: its raw configuration and the shape of every stored tensor."""

    path: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]


# --- where it is -------------------------------------------------------------------------------------------------


def find_folder(spec: BaseSpec) -> Path:
    """The folder of a base; a Hub model's is its snapshot in the local cache, downloaded if it is not there yet.

    A local copy is used as it is, so that a base does not change under the adapters trained on it; the network is
    asked only when there is none.

    Raises:
        BaseModelError: no such folder, or neither a local copy nor a way to fetch one.
    """
    if spec.kind == "hub":
        return _hub_folder(spec)
    folder = Path(spec.location)
    if not folder.is_dir():
        raise BaseModelError(
            f"the base {spec.name} is not there",
            expected="a folder with a model",
            found=str(folder),
            next_step=_OTHER_BASE,
        )
    return folder


def _hub_folder(spec: BaseSpec) -> Path:
    try:
        local = Path(snapshot_download(spec.location, allow_patterns=_DOWNLOADED, local_files_only=True))
    except (hub_errors.LocalEntryNotFoundError, hub_errors.HFValidationError, OSError):
        local = None
    if local is not None and _is_whole(local):
        return local
    offline = f"{spec.location} is not on this machine"
    steps = (
        "go online once and run the command again, or copy the model into a folder and write base_model: ./folder, "
        "or use base_model: pocket, which ships with dlm"
    )
    if _offline_asked():
        raise BaseModelError(
            offline,
            found="HF_HUB_OFFLINE is set, so it is not fetched",
            next_step=f"unset HF_HUB_OFFLINE, {steps}",
        )
    try:
        folder = Path(snapshot_download(spec.location, allow_patterns=_DOWNLOADED))
    except hub_errors.GatedRepoError:
        raise BaseModelError(
            f"{spec.location} is gated on the Hub",
            next_step=f"accept its terms at https://huggingface.co/{spec.location}, then: hf auth login",
        ) from None
    except hub_errors.RepositoryNotFoundError:
        raise BaseModelError(
            f"the Hub has no model {spec.location}, or it is private",
            next_step="check the name; for a private model: hf auth login",
        ) from None
    except hub_errors.OfflineModeIsEnabled:
        raise BaseModelError(offline, found="the Hub's offline mode is on", next_step=steps) from None
    except (hub_errors.LocalEntryNotFoundError, hub_errors.HfHubHTTPError, OSError, RuntimeError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise BaseModelError(
            f"{offline}, and the Hub cannot be reached", found=first, next_step=steps
        ) from None
    if local == folder and not _is_whole(
        folder
    ):  # the Hub's client falls back on what there is without a word
        raise BaseModelError(
            f"{offline} as a whole, and the rest was not fetched",
            found=f"part of it in {folder}",
            next_step=steps,
        )
    return folder


def _offline_asked() -> bool:
    return any(
        os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _is_whole(folder: Path) -> bool:
    """Whether a snapshot has a configuration and all of its weights (a download may have been cut off)."""
    try:
        _read_config(folder)
        _weight_files(folder)
    except BaseModelError:
        return False
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


# --- whether it is fit -------------------------------------------------------------------------------------------


def inspect_folder(folder: Path, name: str, *, scores: bool = False) -> ModelFolder:
    """Check everything that can be checked without loading. With `scores`, the model is to be one that scores answers.

    Raises:
        BaseModelError: unreadable configuration, not a causal language model (or not a classifier with one label), code
            of its own, quantised, pickled, missing or damaged weights, no tokenizer, sizes that the stored tensors
            cannot have.
    """
    config = _read_config(folder)
    _refuse_code(folder, config, name)
    if scores:
        _refuse_what_does_not_score(config, name)
    else:
        _refuse_other_kinds(config, name)
    _refuse_quantised(config, name)
    if (folder / "generation_config.json").is_file():
        read_json(
            folder / "generation_config.json"
        )  # transformers would pass over a broken one, and its end tokens
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _weight_files(folder):
        shapes.update(tensor_shapes(file))
    _refuse_impossible_sizes(config, shapes, name)
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise BaseModelError(
            f"the base {name} has no tokenizer",
            expected=f"{folder}/tokenizer.json",
            next_step="save its tokenizer into the folder: tokenizer.save_pretrained(folder)",
        )
    return ModelFolder(folder, config, shapes)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BaseModelError: the file is absent, not JSON, or no object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaseModelError(
            f"{path} is missing", next_step="copy the model again, or " + _OTHER_BASE
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelError(
            f"{path} cannot be read as JSON: {error}", next_step="copy the model again"
        ) from None
    if not isinstance(data, dict):
        raise BaseModelError(
            f"{path} is not a JSON object", found=type(data).__name__, next_step="copy the model again"
        )
    return data


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file, from its header alone.

    Raises:
        BaseModelError: the file is damaged or cut off.
    """
    sound = readable_faults(f"{file} is no sound safetensors file", "copy the model again")
    with sound, safetensors.safe_open(str(file), framework="pt") as tensors:
        return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118


def _read_config(folder: Path) -> dict[str, Any]:
    return read_json(folder / "config.json")


def _refuse_code(folder: Path, config: Mapping[str, Any], name: str) -> None:
    tokenizer_config = folder / "tokenizer_config.json"
    parts = [("config.json", config)]
    if tokenizer_config.is_file():
        parts.append(("tokenizer_config.json", read_json(tokenizer_config)))
    for file, data in parts:
        if data.get("auto_map"):
            raise BaseModelError(
                f"the base {name} needs Python code of its own, and dlm never runs code that comes with a model",
                found=f"auto_map in {folder / file}",
                next_step=_OTHER_BASE,
            )


def _refuse_other_kinds(config: Mapping[str, Any], name: str) -> None:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise BaseModelError(
            f"the base {name} is not a causal language model that the installed transformers knows",
            found=f"model_type {kind!r}",
            next_step=_OTHER_BASE,
        )
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    expected = {known} if isinstance(known, str) else set(known)
    stated = config.get("architectures")
    architectures = stated if isinstance(stated, list) else [stated] if stated else []
    encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder")
    stated_other = bool(architectures) and not expected.intersection(map(str, architectures))
    if stated_other or (encoder and not architectures) or config.get("is_encoder_decoder"):
        raise BaseModelError(
            f"the base {name} does not continue text from left to right",
            expected=f"architectures: {', '.join(sorted(expected))}",
            found=f"{', '.join(map(str, architectures)) or kind}",
            next_step=_OTHER_BASE,
        )


def _refuse_what_does_not_score(config: Mapping[str, Any], name: str) -> None:
    expected = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(str(config.get("model_type")))
    stated = config.get("architectures")
    labels = config.get("id2label")
    if expected is None or stated != [expected] or not isinstance(labels, dict) or len(labels) != 1:
        raise BaseModelError(
            f"{name} holds no reward model",
            expected=f"a sequence classifier with one label, architectures: {expected or 'one that transformers knows'}",
            found=f"{stated}, {len(labels) if isinstance(labels, dict) else 'no'} labels",
            next_step="dlm train DOCUMENT --phase reward makes one",
        )


def _refuse_quantised(config: Mapping[str, Any], name: str) -> None:
    if config.get("quantization_config"):
        raise BaseModelError(
            f"the base {name} is quantised; dlm trains adapters on full-precision weights",
            found="quantization_config in config.json",
            next_step="name the unquantised model",
        )


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    if index.is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise BaseModelError(f"{index} lists no weights", next_step="copy the model again")
        shards = sorted(set(map(str, names.values())))
        bad = [shard for shard in shards if Path(shard).name != shard or not (folder / shard).is_file()]
        if bad:
            raise BaseModelError(
                f"weights are missing: {', '.join(bad[:3])}",
                where=str(folder),
                next_step="copy or download the model again",
            )
        return [folder / shard for shard in shards]
    pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
    if pickled:
        raise BaseModelError(
            "the weights are pickled, and opening a pickle runs whatever it holds",
            expected="model.safetensors",
            found=f"{folder / pickled[0]}",
            next_step="use the model's safetensors edition, or convert it where you trust it",
        )
    raise BaseModelError(
        "the folder holds no weights",
        expected=str(single),
        next_step="copy the model again, or " + _OTHER_BASE,
    )


def _refuse_impossible_sizes(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], name: str
) -> None:
    """Refuse sizes that are no sizes, or far beyond the stored tensors, before memory is set aside for them."""
    widest = max((size for shape in shapes.values() for size in shape), default=0)
    limits = dict.fromkeys(("num_hidden_layers", "n_layer"), len(shapes))
    limits |= dict.fromkeys(
        (
            *("vocab_size", "hidden_size", "n_embd", "intermediate_size", "n_inner", "head_dim"),
            *("num_attention_heads", "n_head", "num_key_value_heads"),
        ),
        widest,
    )
    limits |= dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), _LONGEST_CONTEXT)
    for key, limit in limits.items():
        value = config.get(key)
        for size in (
            value if isinstance(value, list) else [] if value is None else [value]
        ):  # some differ by layer
            if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= limit:
                raise BaseModelError(
                    f"the configuration of {name} does not fit its weights",
                    expected=f"{key} between 1 and {limit}",
                    found=f"{key}: {value!r}",
                    next_step="copy the model again",
                )
