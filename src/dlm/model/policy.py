"""A policy: base, adapter, tokenizer and chat template, loaded and ready to score or sample."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict

from dlm.bases import BaseSpec
from dlm.errors import BaseModelError, ContextLengthError
from dlm.model.chat import Chat
from dlm.model.device import DTYPES, choose_device, choose_dtype, choose_threads
from dlm.model.fingerprint import fingerprint_folder
from dlm.model.source import (
    ModelFolder,
    find_folder,
    inspect_folder,
    read_json,
    readable_faults,
    tensor_shapes,
)
from dlm.recipe import Choice

__all__ = ["Policy", "load_adapter", "load_folder", "load_policy", "quiet_libraries"]

_ANY_LENGTH = 1_000_000  # tokenizers without a limit state an absurd one


@dataclass(frozen=True)
class Policy:
    """What is loaded, and why so.

    Attributes:
        spec: the base as the document names it.
        folder: where its files are.
        model: the transformers model, or a PeftModel around it when an adapter was given; in eval mode.
        tokenizer: as the base brings it.
        chat: the renderer of every prompt and answer.
        device, dtype, threads: each with its reason; dtype is fp32, bf16 or fp16, threads are the CPU's.
        context_length: prompt and answer together, in tokens.
        fingerprint: identity of the base (see `fingerprint_folder`).
        adapter: the adapter's folder, or None.
        notes: what a user should know about this base.
    """

    spec: BaseSpec
    folder: Path
    model: Any
    tokenizer: Any
    chat: Chat
    device: Choice[str]
    dtype: Choice[str]
    threads: Choice[int]
    context_length: int
    fingerprint: str
    adapter: Path | None
    notes: tuple[str, ...]

    def require_room(self, prompt_tokens: int) -> int:
        """How many tokens an answer may have after a prompt of `prompt_tokens` tokens.

        Raises:
            ContextLengthError: not even one.
        """
        room = self.context_length - prompt_tokens
        if room < 1:
            raise ContextLengthError(
                f"the prompt is too long for {self.spec.name}",
                expected=f"at most {self.context_length - 1} tokens, so that one is left for the answer",
                found=f"{prompt_tokens} tokens (system prompt and template included)",
                next_step=f"shorten it by {1 - room} tokens, or name a base with a longer context",
            )
        return room


def load_policy(
    spec: BaseSpec,
    adapter: Path | None = None,
    *,
    device: str = "auto",
    precision: str | None = None,
    system_prompt: str | None = None,
    trainable: bool = False,
) -> Policy:
    """Load a base, and an adapter on it. Sets the number of threads that torch computes with in this process.

    Args:
        spec: the base.
        adapter: a version's folder (PEFT files).
        device: auto, cpu, cuda, cuda:N or mps.
        precision: fp32, bf16 or fp16 for the base's weights; None chooses.
        system_prompt: the document's.
        trainable: leave the adapter's weights open to training (the base's never are).

    Raises:
        BaseModelError: the base or the adapter is missing, damaged or of the wrong kind; the reason is given.
        UsageError: the machine cannot do what `device` or `precision` ask.
    """
    return load_folder(
        spec,
        find_folder(spec),
        adapter,
        device=device,
        precision=precision,
        system_prompt=system_prompt,
        trainable=trainable,
    )


def load_folder(
    spec: BaseSpec,
    folder: Path,
    adapter: Path | None = None,
    *,
    device: str,
    precision: str | None,
    system_prompt: str | None,
    trainable: bool = False,
    scores: bool = False,
) -> Policy:
    """Load the model in `folder` as `load_policy` does; with `scores`, a sequence classifier with one label."""
    where = choose_device(device)
    dtype = choose_dtype(precision, where.value)
    found = inspect_folder(folder, spec.name, scores=scores)
    with quiet_libraries():
        tokenizer = _load_tokenizer(found, spec.name)
        model = _load_model(found, spec.name, dtype.value, scores)
    _check_vocabulary(tokenizer, model, spec.name)
    with readable_faults(f"the files of {spec.name} cannot be read"):
        fingerprint = fingerprint_folder(folder)
    context, context_note = _context_length(model.config, tokenizer)
    with readable_faults(f"the chat template of {spec.name} cannot be used"), _rust_faults(spec.name):
        chat = Chat(tokenizer, system_prompt, extra_stop_ids=_listed_ends(model))
    model.requires_grad_(False)
    threads = choose_threads(model.num_parameters())
    torch.set_num_threads(threads.value)
    if adapter is not None:
        model = load_adapter(model, adapter, fingerprint, spec.name, trainable=trainable)
    with readable_faults(f"{spec.name} does not fit on {where.value}", "--device cpu, or a smaller base"):
        model.to(where.value)
    model.eval()
    _try_out(model, spec.name)
    notes = tuple(note for note in (*chat.notes, context_note) if note)
    return Policy(
        spec, folder, model, tokenizer, chat, where, dtype, threads, context, fingerprint, adapter, notes
    )


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the libraries' reports and bars while files are read or written: what matters, dlm checks and says."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


# --- the base ----------------------------------------------------------------------------------------------------


def _load_tokenizer(found: ModelFolder, name: str) -> Any:
    parts = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    for part in parts:
        if (found.path / part).is_file():
            read_json(found.path / part)  # tokenizers reports bad JSON as a bare Exception
    with readable_faults(f"the tokenizer of {name} cannot be loaded"), _rust_faults(name):
        return transformers.AutoTokenizer.from_pretrained(
            str(found.path), trust_remote_code=False, local_files_only=True
        )


@contextmanager
def _rust_faults(name: str) -> Iterator[None]:
    """Turn faults of the tokenizers library into a BaseModelError.

    On a file it cannot use it raises a bare `Exception`, or a Rust panic, whose class has no importable name.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise BaseModelError(
            f"the tokenizer of {name} is damaged: {error}", next_step="copy the model again"
        ) from None


def _load_model(found: ModelFolder, name: str, dtype: str, scores: bool) -> Any:
    kind = transformers.AutoModelForSequenceClassification if scores else transformers.AutoModelForCausalLM
    with readable_faults(f"the base {name} cannot be loaded"):
        model, report = kind.from_pretrained(
            str(found.path),
            dtype=DTYPES[dtype],
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # so that they are listed in the report, and refused here with names
            output_loading_info=True,
        )
    shapes = [
        f"{key} ({_shape(stored)} stored, {_shape(wanted)} expected)"
        for key, stored, wanted in report["mismatched_keys"]
    ]
    for fault, keys in (
        ("has tensors of the wrong shape", sorted(shapes)),
        ("lacks weights", sorted(report["missing_keys"])),
        ("holds weights that its architecture does not have", sorted(report["unexpected_keys"])),
    ):
        if keys:
            raise _weights_error(name, fault, keys)
    _refuse_non_finite(model, name)
    return model


def _shape(size: Any) -> str:
    return "×".join(map(str, size))


def _weights_error(name: str, fault: str, keys: list[str]) -> BaseModelError:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return BaseModelError(
        f"the base {name} {fault}",
        found=", ".join(keys[:3]) + more,
        next_step="copy or download the model again",
    )


def _refuse_non_finite(model: Any, name: str) -> None:
    # One sum per tensor: NaN and infinity both survive it, and no mask as large as the tensor is made. A sum that
    # overflows by itself is looked at again, entry by entry.
    for key, tensor in model.named_parameters():
        if not torch.isfinite(tensor.sum(dtype=torch.float32)) and not torch.isfinite(tensor).all():
            raise BaseModelError(
                f"{name} holds weights that are not finite numbers",
                found=key,
                next_step="copy or train it again",
            )


def _try_out(model: Any, name: str) -> None:
    """Run two tokens and one more with the cache: sizes that contradict each other only show when computing."""
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.get_input_embeddings().weight.device)
    with readable_faults(f"the base {name} cannot compute"), torch.no_grad():
        first = model(input_ids=ids, attention_mask=ids.new_ones(1, 2), use_cache=True)
        second = model(
            input_ids=ids[:, :1],
            attention_mask=ids.new_ones(1, 3),
            past_key_values=first.past_key_values,
            use_cache=True,
        )
    if not torch.isfinite(second.logits).all():
        raise BaseModelError(
            f"the scores of {name} are not finite numbers", next_step="copy it again, or train again"
        )


def _check_vocabulary(tokenizer: Any, model: Any, name: str) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest < 0:
        raise BaseModelError(f"the tokenizer of {name} knows no tokens", next_step="copy the model again")
    if largest >= rows:
        raise BaseModelError(
            f"the tokenizer of {name} is larger than its embeddings: they do not belong together",
            expected=f"ids below {rows}",
            found=f"id {largest}",
            next_step="save the matching tokenizer into the folder",
        )


def _context_length(config: Any, tokenizer: Any) -> tuple[int, str]:
    """The longest sequence the base can read, in tokens, and a note where it had to be guessed."""
    text = config.get_text_config()
    limits = [
        getattr(text, name, None)
        for name in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length")
    ]
    known = [limit for limit in limits if isinstance(limit, int) and limit > 0][:1]
    stated = getattr(tokenizer, "model_max_length", None)
    if isinstance(stated, int) and 0 < stated < _ANY_LENGTH:
        known.append(stated)
    if known:
        return min(known), ""
    return 2048, "the base states no context length: 2048 tokens are assumed"


def _listed_ends(model: Any) -> list[int]:
    """The end tokens that the base's generation configuration lists."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return [end for end in (ends if isinstance(ends, list | tuple) else [ends]) if isinstance(end, int)]


# --- the adapter -------------------------------------------------------------------------------------------------


def load_adapter(model: Any, folder: Path, fingerprint: str, name: str, *, trainable: bool) -> Any:
    """Put an adapter's weights into a base's model.

    Raises:
        BaseModelError: the files are missing, damaged, of another kind than the model, or of another base.
    """
    config = read_json(folder / "adapter_config.json")
    weights = folder / "adapter_model.safetensors"
    if config.get("peft_type") != "LORA":
        raise BaseModelError(
            f"{folder} holds no adapter that dlm can load",
            expected="peft_type LORA",
            found=f"{config.get('peft_type')!r}",
        )
    if (config.get("task_type") == "SEQ_CLS") != (getattr(model, "score", None) is not None):
        raise BaseModelError(
            f"{folder} holds a reward model: it scores answers and writes none",
            next_step="name a version of another phase; a reward model serves as the judge hf:FOLDER",
        )
    if config.get("auto_mapping"):
        raise BaseModelError(
            f"the adapter {folder} names code of its own (auto_mapping)", next_step="use another version"
        )
    if not weights.is_file():
        raise BaseModelError(f"{weights} is missing", next_step="use another version, or train again")
    _check_origin(folder, fingerprint, name)
    stored = tensor_shapes(weights)
    with (
        quiet_libraries(),
        readable_faults(
            f"the adapter {folder} does not fit the base {name}", "use the base it was trained on"
        ),
    ):
        loaded = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
        expected = {
            key: tuple(tensor.shape)
            for key, tensor in get_peft_model_state_dict(loaded, save_embedding_layers=False).items()
        }
    odd = sorted(set(stored) ^ set(expected)) or sorted(key for key in stored if stored[key] != expected[key])
    if odd:
        raise BaseModelError(
            f"the adapter {folder} does not fit the base {name}",
            found=f"{len(odd)} tensors that differ, such as {odd[0]}",
            next_step="use the base it was trained on",
        )
    _refuse_non_finite(loaded, f"the adapter {folder}")
    return loaded


def _check_origin(folder: Path, fingerprint: str, name: str) -> None:
    """Compare the base that `version.json` remembers with the one that is loaded."""
    record = folder / "version.json"
    if not record.is_file():
        return  # an adapter from elsewhere: its shapes are all there is to check
    trained_on = read_json(record).get("base_fingerprint")
    if trained_on and trained_on != fingerprint:
        raise BaseModelError(
            f"the adapter {folder.name} was trained on another base than {name} as it is now",
            expected=f"fingerprint {str(trained_on)[:12]}",
            found=f"fingerprint {fingerprint[:12]}",
            next_step="restore the base it was trained on, or train again: dlm train DOCUMENT",
        )
