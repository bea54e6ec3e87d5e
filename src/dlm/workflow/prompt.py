"""Ask a version of a document's model: which weights answer, and how the answer is sampled."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from dlm.bases import resolve_base
from dlm.document import Document, load
from dlm.errors import MissingRecordError, UsageError
from dlm.model import Policy, Sample, Settings, choose_device, load_policy, sample, stream
from dlm.recipe import Choice
from dlm.store import Home, Store, Version

__all__ = ["BASE", "answer", "answer_stream", "open_policy", "pick_version"]

BASE = "base"


def pick_version(store: Store | None, wanted: str | None) -> Choice[Version | None]:
    """The version to answer with, and why; None stands for the untrained base.

    Raises:
        MissingRecordError: no version of that name in this document's store.
    """
    if wanted == BASE:
        return Choice(None, "the base was asked for")
    if wanted is not None:
        if store is None:
            raise MissingRecordError(
                f"no version {wanted}: this document has not been trained",
                next_step="dlm train trains the first one",
            )
        return Choice(store.versions.verify(store.versions.get(wanted)), f"{wanted} was asked for")
    current = store.versions.current() if store is not None else None
    if current is None:
        return Choice(None, "nothing is trained yet: this is the base")
    return Choice(current, "the current version")


def open_policy(
    document_path: Path, wanted: str | None = None, *, device: str = "auto"
) -> tuple[Policy, Choice[str]]:
    """Load a document's model: the current version, a named one, or `base`; and say which and why.

    Raises:
        DocumentError, BaseModelError, MissingRecordError: nothing can answer.
        UsageError: the version is a reward model.
    """
    document = load(document_path)
    store = Home.open().find(document.header.dlm_id)
    try:
        picked = pick_version(store, wanted)
        if picked.value is not None and not picked.value.answers:
            raise UsageError(
                f"{picked.value.name} is a reward model: it scores answers and gives none",
                next_step=f"name another version: dlm show {shlex.quote(str(document_path))}",
            )
        return _load(document, document_path, picked.value, device), Choice(
            picked.value.name if picked.value else BASE, picked.reason
        )
    finally:
        if store is not None:
            store.close()


def _load(document: Document, path: Path, version: Version | None, device: str) -> Policy:
    spec = resolve_base(version.base if version else document.header.base_model, path.parent)
    precision = document.header.training.precision
    if precision == "fp16" and choose_device(device).value == "cpu":
        precision = (
            None  # the header speaks of the machine it was trained on; here the device's own choice holds
        )
    return load_policy(
        spec,
        version.folder if version else None,
        device=device,
        precision=precision,
        system_prompt=document.header.system_prompt,
    )


def answer(policy: Policy, question: str, settings: Settings, seed: int) -> Sample:
    """One whole answer."""
    return sample(policy, [policy.chat.prompt_ids(question)], settings, [seed])[0]


def answer_stream(policy: Policy, question: str, settings: Settings, seed: int) -> Iterator[str | Sample]:
    """Pieces of an answer as they are sampled, then the whole `Sample`."""
    return stream(policy, policy.chat.prompt_ids(question), settings, seed)
