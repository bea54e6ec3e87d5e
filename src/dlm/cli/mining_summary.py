"""What a mine run did, read from the store alone: for `dlm show` and `dlm metrics`, which load no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlm.cli.output import duration, plural

if TYPE_CHECKING:
    from dlm.store import Run, Store

__all__ = ["mining_counts", "mining_items", "mining_summary"]

_FINISHED = "mining_finished"


def mining_summary(store: Store, run: Run, status: str) -> dict[str, Any]:
    """A mine run in numbers, as far as it has come. What became of its pairs is as it is now."""
    tally = store.mining.tally(run.id)
    finished = store.runs.events(run.id, _FINISHED)
    facts = finished[-1].data if finished else {}
    return {
        "run_id": run.id,
        "status": status,
        "version": run.parent_version or "base",
        "judge": run.method,
        "finished_at": run.finished_at,
        "prompts": tally.questions,
        "candidates": tally.candidates,
        "tokens": tally.tokens,
        "judged": tally.judged,
        "judge_failed": tally.judge_failed,
        "judge_calls": tally.judge_calls,
        "judge_seconds": tally.judge_seconds,
        "pairs": dict(tally.pairs),
        "skipped_candidates": dict(tally.skipped_candidates),
        "skipped_prompts": dict(facts["skipped_prompts"]) if facts else None,
        "threshold": facts.get("threshold"),
    }


def mining_items(summary: Mapping[str, Any]) -> dict[str, str]:
    """A summary as names and values for people."""
    items = {
        "sampled": f"{plural(summary['candidates'], 'answer')} of {summary['version']} to "
        f"{plural(summary['prompts'], 'question')}, {plural(summary['tokens'], 'token')}",
        "judged": f"{plural(summary['judged'], 'answer')} by {summary['judge']} in {duration(summary['judge_seconds'])}"
        + (f"; {summary['judge_failed']} got no score" if summary["judge_failed"] else ""),
        "pairs": mining_counts(summary["pairs"]) or "none",
    }
    if mining_counts(summary["skipped_candidates"]):
        items["answers left out"] = mining_counts(summary["skipped_candidates"])
    if mining_counts(summary["skipped_prompts"] or {}):
        items["questions skipped"] = mining_counts(summary["skipped_prompts"])
    return items


def mining_counts(counts: Mapping[str, int]) -> str:
    """`3 staged, 1 applied`; what there is none of is left out."""
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
