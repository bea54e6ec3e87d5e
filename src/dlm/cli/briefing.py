"""The pre-flight table: what a run is about to do, with the reason beside every automatic choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dlm.cli.output import clean, duration, plural

if TYPE_CHECKING:
    from dlm.training import Finding, Preflight
    from dlm.workflow.views import Briefing

__all__ = ["briefing_items", "finding_lines", "phase_line", "words_of"]

MOST_OF_A_KIND = 10  # findings of one kind that are shown one by one; the run's events hold all

_NAMES = {
    "sft_valid": "held-out questions",
    "pairs": "pairs watched",
}  # rows by their use, where that is no word
_REASONS = {
    "mined": "mined",
    "reverted": "reverted or rejected, but in the document",
    "below_margin": "below the margin",
    "equal": "both answers equal",
    "scores_reversed": "scores prefer the rejected answer",
    "same_tokens": "both answers the same tokens",
    "too_long": "too long",
}


def phase_line(briefing: Briefing) -> str:
    """Which phase, and what it starts from."""
    method = "" if briefing.phase == "sft" else f" ({briefing.method})"
    return f"{briefing.phase} phase{method} from {briefing.start.value}"


def briefing_items(briefing: Briefing) -> dict[str, str]:
    """Names and values of the table."""
    preflight, plan = briefing.preflight, briefing.preflight.plan
    sections = ", ".join(f"{count} {kind}" for kind, count in briefing.sections.items() if count)
    share = preflight.trainable_parameters / max(preflight.total_parameters, 1)
    noun = {"sft": "rows", "rft": "prompts"}.get(briefing.phase, "pairs")
    items = {
        "document": f"{clean(str(briefing.document))}: sections {sections or 'none'}",
        "starts from": f"{briefing.start.value} ({briefing.start.reason})",
        "base": f"{briefing.base}, {preflight.total_parameters:,} parameters, "
        f"{preflight.trainable_parameters:,} trained ({share:.1%})",
        "device": f"{briefing.device.value} ({briefing.device.reason}), "
        f"{briefing.dtype.value} ({briefing.dtype.reason})"
        + (
            f", {plural(briefing.threads.value, 'thread')} ({briefing.threads.reason})"
            if briefing.device.value == "cpu"
            else ""
        ),
        noun: (_rows(preflight) if briefing.phase == "sft" else _counts(preflight.rows))
        + (f"\n{preflight.split_reason}" if preflight.split_reason else ""),
    }
    if len(preflight.origins) > 1:
        items["files"] = "\n".join(f"{clean(name)}: {count:,}" for name, count in preflight.origins.items())
    if preflight.left_out:
        items["left out"] = ", ".join(
            f"{count:,} {words_of(kind)}" for kind, count in preflight.left_out.items()
        )
    items |= {
        "tokens": _tokens(preflight),
        "steps": f"{plan.total_steps:,} of {plural(plan.rows_per_step, noun[:-1])}{_each(briefing)}: "
        f"{_epochs(preflight.epochs.value)} "
        f"({preflight.epochs.reason}); micro-batch {preflight.micro.value} ({preflight.micro.reason})",
        "order": f"{'by length' if preflight.order.value else 'mixed'} ({preflight.order.reason})",
        "layout": f"{briefing.layout.value} ({briefing.layout.reason})",
        "products": f"{briefing.products.value} ({briefing.products.reason})",
    }
    if preflight.reference is not None:
        reference = preflight.reference
        items["reference"] = (
            f"log-probs of {plural(reference.computed + reference.reused, 'answer')}: "
            f"{reference.reused:,} from the cache, {reference.computed:,} computed"
        )
    items["knobs"] = _knobs(briefing)
    if briefing.estimate is not None:
        items["estimate"] = (
            f"{duration(briefing.estimate.seconds)}, {briefing.estimate.peak_memory_mb:,.0f} MB of memory"
        )
    if preflight.split_prose:
        items["prose"] = (
            f"{plural(preflight.split_prose, 'text')} longer than the room: split into windows, nothing cut"
        )
    return items


def _each(briefing: Briefing) -> str:
    """How many answers a prompt gets, where answers are sampled."""
    size = briefing.resolved.values().get("rft.group_size")
    return "" if size is None else f" × {plural(size, 'answer')}"


def words_of(kind: str) -> str:
    """A kind of reason for which a row or a pair is left out, in words."""
    return _REASONS.get(kind, kind.replace("_", " "))


def finding_lines(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Findings as (level, line); of many alike the first ones, and how many more there are."""
    lines: list[tuple[str, str]] = []
    seen: dict[str, int] = {}
    for finding in findings:
        seen[finding.kind] = seen.get(finding.kind, 0) + 1
        if seen[finding.kind] <= MOST_OF_A_KIND:
            lines.append((finding.level, str(finding)))
    lines += [
        ("note", f"and {count - MOST_OF_A_KIND:,} more: {words_of(kind)}")
        for kind, count in seen.items()
        if count > MOST_OF_A_KIND
    ]
    return lines


def _rows(preflight: Preflight) -> str:
    """How many rows go where, without those that are left out."""
    counts = dict.fromkeys(("train", "validation", "probes"), 0) | dict(preflight.rows)
    skipped = [one.row for one in preflight.skipped]
    lost = sum(not getattr(row, "probe", False) for row in skipped)
    if lost and preflight.split_prose and counts["validation"]:
        # Texts were split into windows, so the number of examples does not tell which part lost its rows.
        return f"{_counts(counts)}; {len(skipped):,} of them left out"
    in_training = lost if preflight.split_prose else counts["train"] - preflight.plan.n_examples
    counts["train"] -= in_training
    counts["validation"] -= lost - in_training
    counts["probes"] -= len(skipped) - lost
    return _counts(counts) + (f"; {len(skipped):,} left out" if skipped else "")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{_NAMES.get(name, name)} {count:,}" for name, count in counts.items() if count)


def _tokens(preflight: Preflight) -> str:
    whole = preflight.tokens["whole"]
    parts = ", ".join(
        f"{name} {spread.median:,}" for name, spread in preflight.tokens.items() if name != "whole"
    )
    return (
        f"{whole.min:,} to {whole.max:,} in one, median {whole.median:,}{f' ({parts})' if parts else ''}, "
        f"{whole.total:,} in all; room for {preflight.max_len.value:,} ({preflight.max_len.reason})"
    )


def _epochs(epochs: float) -> str:
    """`1 epoch`, `20 epochs`, `1.5 epochs`, `0.043 epochs`."""
    if epochs == int(epochs):
        return plural(int(epochs), "epoch")
    return f"{epochs:,.1f} epochs" if epochs >= 1 else f"{epochs:.2g} epochs"


def _knobs(briefing: Briefing) -> str:
    """The knobs that are not at their defaults, one a line, each with where its value comes from."""
    resolved = briefing.resolved
    values, origins = resolved.values(), resolved.origins
    shared, *others = set(origins.values())
    if not others and shared != "default":  # a resumed run has all its knobs from one place
        defaults = resolved.defaults()
        changed = [name for name, value in values.items() if value != defaults[name]]
        return "\n".join([f"{shared}:", *(f"{name} {values[name]}" for name in changed)])
    told = {f"{resolved.phase}.{name}" for name in ("learning_rate", "num_epochs")}  # with the recipe's own
    settled = [
        f"{name} {value}  ({origins[name]})"
        for name, value in values.items()
        if origins[name] != "default" and name not in told
    ]
    return "\n".join(settled) or "all at their defaults"
