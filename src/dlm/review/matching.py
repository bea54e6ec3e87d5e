"""Which section of a document belongs to which staged pair: by its content and its provenance, wherever it stands.

A section that still says what was written is found exactly, moved or not. One that a person changed since is known by
its provenance, which names the run, the judge, both scores and the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dlm.document import Document, Provenance, Section, Triple, mined
from dlm.store import StagedPair

__all__ = ["Places", "locate", "provenance_of"]

_Origin = tuple[str, float, float, str, int]


@dataclass(frozen=True)
class Places:
    """Sections by the number of their pair: those that say what was written, and those edited by hand since."""

    exact: Mapping[int, Section]
    edited: Mapping[int, Section]
    foreign: tuple[Section, ...]  # mined sections that belong to no pair of this store

    def of(self, pair_id: int) -> Section | None:
        """The section of a pair, edited or not; None when the document has none."""
        return self.exact.get(pair_id) or self.edited.get(pair_id)


def provenance_of(pair: StagedPair) -> Provenance:
    """The five fields that are written with a pair."""
    return mined(
        judge_name=pair.judge_name,
        judge_score_chosen=pair.chosen_score,
        judge_score_rejected=pair.rejected_score,
        mined_at=pair.mined_at,
        mined_run_id=pair.run_id,
    )


def locate(document: Document, pairs: Iterable[StagedPair]) -> Places:
    """Give each mined section of the document to one pair.

    Pass every pair of the store: a section is another pair's only when all that could claim it are known.
    """
    # Where two pairs say the same, the one known to be in the document comes first.
    waiting = sorted(pairs, key=lambda pair: (pair.status != "applied", pair.id))
    exact: dict[int, Section] = {}
    left: list[Section] = []
    claims = defaultdict(list)
    for pair in waiting:
        claims[_origin(provenance_of(pair)), (pair.prompt, pair.chosen, pair.rejected)].append(pair.id)
    for section in document.sections:
        if not section.auto_mined or section.provenance is None:
            continue
        content = _texts(section.triples[0]) if len(section.triples) == 1 else None
        ids = claims.get((_origin(section.provenance), content)) if content else None
        if ids:
            exact[ids.pop(0)] = section
        else:
            left.append(section)
    edited = _assign_edited(left, [pair for pair in waiting if pair.id not in exact])
    claimed = {section.index for section in edited.values()}
    return Places(exact, edited, tuple(section for section in left if section.index not in claimed))


def _assign_edited(sections: Iterable[Section], pairs: list[StagedPair]) -> dict[int, Section]:
    """Sections with a pair's provenance and other content, each to the applied pair it shares the most texts with."""
    by_origin: dict[_Origin, list[StagedPair]] = defaultdict(list)
    for pair in pairs:
        if pair.status in ("applied", "reverted") and pair.section_id:
            by_origin[_origin(provenance_of(pair))].append(pair)
    edited: dict[int, Section] = {}
    for section in sections:
        candidates = by_origin[_origin(section.provenance)] if section.provenance else []
        if candidates:
            nearest = max(candidates, key=lambda pair: _shared(section, pair))  # the first of equals
            candidates.remove(nearest)
            edited[nearest.id] = section
    return edited


def _shared(section: Section, pair: StagedPair) -> int:
    """How many of the pair's three texts the section still has, in the triple that has the most."""
    texts = (pair.prompt, pair.chosen, pair.rejected)
    return max(
        (sum(a == b for a, b in zip(_texts(triple), texts, strict=True)) for triple in section.triples),
        default=0,
    )


def _texts(triple: Triple) -> tuple[str, str, str]:
    return triple.prompt, triple.chosen, triple.rejected


def _origin(provenance: Provenance) -> _Origin:
    """The five fields as values, so that another spelling of a number is the same number."""
    values = provenance.values
    return (
        values["judge_name"],
        float(values["judge_score_chosen"]),
        float(values["judge_score_rejected"]),
        values["mined_at"],
        int(values["mined_run_id"]),
    )
