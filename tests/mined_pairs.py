"""Mine runs as mining leaves them in the store, without a model: candidates, scores, staged pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlm.document import load
from dlm.store import NewCandidate, NewPair, RunSpec, StagedPair, Store

Texts = tuple[str, str, str]

TEXTS: tuple[Texts, ...] = (
    ("How should notes read?", "Short and factual.", "They should, I would say, read at some length."),
    ("Who waters the plants?", "Whoever comes first.", "Plants need water; and light, too."),
    ("Where do laptops go?", "To the shelf.", "Into the shelf that stands behind the printer, always."),
)


def mine(
    store: Store,
    document: Path,
    texts: Sequence[Texts] = TEXTS,
    *,
    judge: str = 'cli:./score.sh --who "us" <x> --',
    scores: tuple[float, float] = (0.82, 0.31),
    parent_version: str | None = None,
) -> tuple[StagedPair, ...]:
    """A complete mine run with a pair for each (prompt, chosen, rejected)."""
    with store.lock("dlm preference mine"):
        store.attach(document)
        spec = RunSpec(
            "mine",
            judge,
            {"samples": 2},
            parent_version=parent_version,
            document_sha256=load(document).sha256,
        )
        run = store.runs.start(spec)
        staged: list[StagedPair] = []
        for number, (prompt, chosen, rejected) in enumerate(texts):
            better, worse = store.mining.add_candidates(
                run.id,
                [
                    NewCandidate(f"q{number}", prompt, sample, 100 * number + sample, text, 5, "stop")
                    for sample, text in enumerate((chosen, rejected))
                ],
            )
            for candidate, score in zip((better, worse), scores, strict=True):
                store.mining.record_judgement(
                    candidate.id, score=score, reasoning=f"because of {score}", seconds=0.01
                )
            pair = NewPair(
                f"q{number}",
                prompt,
                chosen,
                rejected,
                better.id,
                worse.id,
                *scores,
                judge,
                "2026-04-23T18:42:11.042Z",
            )
            staged += store.mining.stage(run.id, [pair])
        store.runs.finish(run.id, "complete")
    return tuple(staged)
