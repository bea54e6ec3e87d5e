"""`hf:<model>`: a reward model as judge, a causal trunk with a head of one output.

The model is a folder (a version or an export of our own reward phase, or a sequence classifier with one label that
someone else trained) or a Hub name whose files are on this machine already: a document from a stranger never starts a
download. Weights are safetensors and no code that comes with a model runs; see `dlm.model.source`.

Where the answers of a pair are compared by such a model, the difference of their scores is the log-odds that the first is
the better one (Bradley and Terry 1952), as the model was trained to see it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from dlm.bases import BaseSpec
from dlm.errors import BaseModelError, ContextLengthError
from dlm.judging.judge import Item, JudgeContext, JudgeSpec, Verdict, unreadable
from dlm.model import RewardModel, load_reward_model
from dlm.model.fingerprint import fingerprint_folder
from dlm.model.source import read_json

__all__ = ["RewardModelJudge", "find_model", "fingerprint_model"]

_AT_ONCE = 32  # answers scored before their verdicts are handed on


class RewardModelJudge:
    """`hf:<model>`; see the module."""

    default_threshold = 1.0  # the better answer is the better one with a probability of 73 %
    scale = "the reward model's logit; a difference of 1 means 73 % sure, of 2 88 %"

    def __init__(self, name: str, model: RewardModel) -> None:
        self.name = name
        self._model = model

    @classmethod
    def load(cls, spec: JudgeSpec, context: JudgeContext) -> RewardModelJudge:
        """Load the model.

        Raises:
            BaseModelError: it is not there, is no such model, or is damaged.
        """
        folder = find_model(spec.target, context.folder)
        model = load_reward_model(
            folder, _base_of(folder, context.base), device=context.device, precision=context.precision
        )
        return cls(spec.text, model)

    def score(self, items: Sequence[Item]) -> Iterator[Verdict]:
        """See `Judge.score`. Asked once: the same answer would get the same score."""
        for start in range(0, len(items), _AT_ONCE):
            yield from self._some(items[start : start + _AT_ONCE])

    def close(self) -> None:
        """Nothing runs between two answers."""

    def _some(self, items: Sequence[Item]) -> list[Verdict]:
        start = time.monotonic()
        faults = [unreadable(item) for item in items]
        sound = [item for item, fault in zip(items, faults, strict=True) if not fault]
        try:
            found = iter([_verdict(value) for value in self._scores(sound)])
        except ContextLengthError:
            found = iter([self._alone(item) for item in sound])
        seconds = (time.monotonic() - start) / len(items)
        verdicts = [Verdict(None, error=fault) if fault else next(found) for fault in faults]
        return [Verdict(one.score, None, one.error, seconds, one.failures) for one in verdicts]

    def _alone(self, item: Item) -> Verdict:
        try:
            return _verdict(self._scores([item])[0])
        except ContextLengthError as error:
            return Verdict(None, error=f"{error.message}: {error.found}")

    def _scores(self, items: Sequence[Item]) -> list[float]:
        # the text, not the sampled ids: they are another tokenizer's, as a rule
        return self._model.scores([(item.prompt, item.candidate) for item in items])


def _verdict(value: float) -> Verdict:
    if math.isfinite(value):
        return Verdict(value)
    return Verdict(None, error=f"the reward model's score is {value}", failures=("non_finite",))


def _base_of(folder: Path, base: BaseSpec | None) -> BaseSpec | None:
    """The document's base, where the folder holds an adapter whose record names none that can be found from anywhere."""
    if not (folder / "adapter_config.json").is_file() or (folder / "base" / "config.json").is_file():
        return None
    record = folder / "version.json"
    named = str(read_json(record).get("base") or "") if record.is_file() else ""
    return base if not named or named.startswith(".") else None


def find_model(target: str, folder: Path) -> Path:
    """The folder of a model that is on this machine.

    Raises:
        BaseModelError: it is not there.
    """
    place = Path(os.path.abspath(folder / os.path.expanduser(target)))
    if place.is_dir():
        return place
    try:
        return Path(
            snapshot_download(
                target,
                allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"],
                local_files_only=True,
            )
        )
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        raise BaseModelError(
            f"the reward model {target} is not on this machine, and dlm fetches no judges",
            expected=f"a folder ({place}), or a Hub model that was downloaded before",
            next_step=f"hf download {target}, or give a folder"
            if "/" in target
            else "give a folder: hf:./FOLDER",
        ) from None


def fingerprint_model(target: str, folder: Path) -> str:
    """The hash of a model's weights, configuration and tokenizer (see `fingerprint_folder`).

    Raises:
        BaseModelError: it is not there, or cannot be read.
    """
    place = find_model(target, folder)
    try:
        return fingerprint_folder(place)
    except OSError as error:
        raise BaseModelError(f"the reward model {place} cannot be read: {error.strerror}") from None
