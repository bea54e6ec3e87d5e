"""What one invocation trains on: the document, and the files that the command line adds to it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from dlm.bases import BaseSpec, resolve_base
from dlm.document import Document
from dlm.errors import BaseModelError
from dlm.store import Signal
from dlm.training import (
    Pair,
    Row,
    Scalar,
    pairs_of_document,
    read_pairs_file,
    read_rows_file,
    read_scalars_file,
    rows_of_document,
)
from dlm.workflow.rewards import Rewards, read_rewards
from dlm.workflow.signals import NOTHING_STORED, StoredSignals
from dlm.workflow.views import TrainOptions, TrainView

__all__ = ["STORE", "Files", "Material", "base_of", "read_material", "say_what_is_not_used"]


STORE = "store"  # the origin of what the store itself holds


@dataclass(frozen=True)
class Files:
    """Files beside the document, by what they hold; and for the rft phase the suite and grader that are named there."""

    rows: tuple[Path, ...] = ()
    pairs: tuple[Path, ...] = ()
    scalars: tuple[Path, ...] = ()
    prompts: tuple[Path, ...] = ()
    suite: str | None = None
    grader: str | None = None

    @classmethod
    def of(cls, options: TrainOptions) -> Files:
        """Those that the command line names."""
        return cls(
            tuple(options.rows_files),
            tuple(options.pairs_files),
            tuple(options.scalars_files),
            tuple(options.prompts_files),
            options.suite,
            options.grader,
        )

    def or_else(self, others: Files) -> Files:
        """These, and of each kind that is not named here those of `others`."""
        return Files(
            self.rows or others.rows,
            self.pairs or others.pairs,
            self.scalars or others.scalars,
            self.prompts or others.prompts,
            self.suite or others.suite,
            self.grader or others.grader,
        )


@dataclass(frozen=True)
class Material:
    """A document on its base, and everything to train on as it was read: nothing is selected yet."""

    document: Document
    path: Path
    spec: BaseSpec
    files: Files
    rows: Sequence[Row]
    pairs: Sequence[Pair]
    scalars: Sequence[Scalar]
    reverted: Collection[str] = frozenset()  # as `read_material` was told
    stored: StoredSignals = NOTHING_STORED  # likewise; its pairs and scalars are among those above

    @property
    def sections(self) -> dict[str, int]:
        """How many sections of each kind the document has."""
        counts = {"prose": 0, "instruction": 0, "preference": 0}
        for section in self.document.sections:
            counts[section.kind] += 1
        return counts

    @cached_property
    def rewards(self) -> Rewards:
        """Prompts and grader of the rft phase, read when they are first asked for.

        Raises:
            DocumentError, UsageError: see `read_rewards`.
        """
        files = self.files
        return read_rewards(self.document, self.path.parent, files.prompts, files.suite, files.grader)

    @property
    def has_rows(self) -> bool:
        """Whether there is anything for supervised fine-tuning; probes are never trained on."""
        return any(not row.probe for row in self.rows)


def base_of(document: Document, path: Path) -> BaseSpec:
    """The base that a document names.

    Raises:
        BaseModelError: it is not there; the error names the header's line.
    """
    try:
        return resolve_base(document.header.base_model, path.parent)
    except BaseModelError as error:
        line, column = document.places["base_model"]
        error.where = f"{path}:{line}:{column}"
        raise


def read_material(
    document: Document,
    path: Path,
    spec: BaseSpec,
    files: Files,
    view: TrainView,
    *,
    reverted: Collection[str],
    stored: StoredSignals = NOTHING_STORED,
) -> Material:
    """Read rows, pairs and scored answers of the document, of the files beside it, and of the store.

    A stored signal's place is `store:NUMBER`. Its pairs stand after the document's and the files', so that of equal
    ones those are kept.

    Args:
        stored: the store's own signals, or none.
        reverted: `review.reverted_keys` of the document's store. A mined pair with one of them is marked; a pair that
            somebody wrote by hand is theirs, whatever was reverted.

    Raises:
        DocumentError, UsageError: a file cannot be read, or holds lines that are none.
    """
    system_prompt = document.header.system_prompt
    rows, left_out = rows_of_document(document)
    for warning in left_out:
        view.warn(warning)
    for file in files.rows:
        rows.extend(read_rows_file(file, system_prompt))
    pairs = [
        replace(pair, reverted=pair.mined and pair.key in reverted) for pair in pairs_of_document(document)
    ]
    for file in files.pairs:
        pairs.extend(read_pairs_file(file, system_prompt))
    pairs.extend(_stored_pair(signal, reverted) for signal in stored.pairs)
    scalars = [scalar for file in files.scalars for scalar in read_scalars_file(file, system_prompt)]
    scalars.extend(_stored_scalar(signal) for signal in stored.scalars)
    return Material(document, path, spec, files, rows, pairs, scalars, reverted, stored)


def _stored_pair(signal: Signal, reverted: Collection[str]) -> Pair:
    mined = signal.source == "mined"
    return Pair(
        signal.prompt,
        signal.chosen,
        signal.rejected,
        STORE,
        signal.id,
        mined,
        signal.chosen_score,
        signal.rejected_score,
        reverted=mined and signal.key in reverted,
    )


def _stored_scalar(signal: Signal) -> Scalar:
    """Scores are compared within one judge and scale: a vote says nothing about a grader's 7.5."""
    scale = f"{signal.source} {signal.judge} {signal.scale}"
    return Scalar(signal.prompt, signal.chosen, signal.chosen_score or 0.0, STORE, signal.id, scale)


def say_what_is_not_used(document: Document, view: TrainView) -> None:
    """Name what the document states and this version of dlm does not read."""
    header = document.header
    stated = {
        "training.adapters": bool(header.training.adapters),
        "export": "export" in header.model_fields_set,
    }
    unused = [key for key, is_stated in stated.items() if is_stated]
    if unused:
        view.note(f"read and checked, but not used by this version of dlm: {', '.join(unused)}")
