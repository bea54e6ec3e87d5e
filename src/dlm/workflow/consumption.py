"""The log of what a run consumes: the pairs it trains on or holds out, and the scored answers that pairs were made of.

Written when the run starts, as the signals are then; the ORPO tab, "used by" and the filter by run read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from dlm.store import NewSignal, Run, Store
from dlm.training import Pair, PairExample, Prepared, Scalar
from dlm.workflow.material import STORE, Material
from dlm.workflow.signals import pairs_in

__all__ = ["consumed", "log_consumption"]


def log_consumption(store: Store, run: Run, material: Material, prepared: Prepared) -> None:
    """Record what a preference or reward run consumes; a supervised run consumes no signals."""
    if run.kind in ("preference", "reward"):
        store.signals.log_use(run.id, consumed(material, prepared))


def consumed(material: Material, prepared: Prepared) -> Iterator[NewSignal]:
    """The signals that a prepared run reads: each pair once, and each scored answer behind a pair that was made of it."""
    in_document = {pair.line: pair.signal for pair in pairs_in(material.document)}
    in_store = {signal.id: signal for signal in (*material.stored.pairs, *material.stored.scalars)}
    given = set(material.pairs)
    scalars: dict[tuple[str, str], list[Scalar]] = {}
    for scalar in material.scalars:
        scalars.setdefault((scalar.prompt, scalar.response), []).append(scalar)
    told: set[int] = set()
    for example in (*prepared.train, *prepared.validation):
        if not isinstance(example, PairExample):
            continue
        pair = example.pair
        if pair in given:
            yield _signal_of_pair(pair, material, in_document, in_store)
            continue
        for answer in (pair.chosen, pair.rejected):
            for scalar in scalars.get((pair.prompt, answer), ()):
                if id(scalar) not in told:
                    told.add(id(scalar))
                    yield _signal_of_scalar(scalar, in_store)


def _signal_of_pair(
    pair: Pair, material: Material, in_document: Mapping[int, NewSignal], in_store: Mapping[int, NewSignal]
) -> NewSignal:
    if pair.origin == STORE:
        return in_store[pair.line]
    if Path(pair.origin) not in material.files.pairs and pair.line in in_document:
        found = in_document[pair.line]
        return replace(found, provenance={**found.provenance, "line": pair.line})
    return NewSignal(
        "pair",
        "hand",
        pair.prompt,
        pair.chosen,
        pair.rejected,
        pair.chosen_score,
        pair.rejected_score,
        provenance={"from": pair.place},
    )


def _signal_of_scalar(scalar: Scalar, in_store: Mapping[int, NewSignal]) -> NewSignal:
    if scalar.origin == STORE:
        return in_store[scalar.line]
    return NewSignal(
        "scalar",
        "hand",
        scalar.prompt,
        scalar.response,
        chosen_score=scalar.score,
        provenance={"from": scalar.place},
    )
