"""Example data in the shape of a real fine-tuning page: one DPO run of 2,145 logged steps with four curves, one ORPO run,
163 preference pairs, 76 rewards, 3 pairs of an experiment, and 40 pairs that the ORPO run consumed.

    python tools/docs/page_data.py data.jsonl
    dlm import notes.dlm data.jsonl

The same bytes every time. The texts are advice on engineering topics, put together from the lists below; one pair in
eight has a rejected answer about another question, as a template leaks from one task into another.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

N_PAIRS, N_REWARDS, N_EXPERIMENT, N_ORPO = 163, 76, 3, 40
STEPS, PLANNED = 2145, 1938
MINUTES = 39
START = datetime(2026, 3, 14, 9, 30, tzinfo=UTC)
DRIFT_EVERY = 8  # of the pairs, whose rejected answer is about another question

TOPICS: dict[str, tuple[str, ...]] = {
    "reducing latency in REST APIs": (
        "Reuse connections with keep-alive and HTTP/2, so that no request pays for a handshake",
        "Cache responses with ETag and Cache-Control, near the client where the data allows it",
        "Move slow work into a queue and answer 202 with a place to ask for the result",
        "Send less: page long lists, let callers name fields, compress bodies above a kilobyte",
        "Measure the 95th and 99th percentile per endpoint, not the mean",
    ),
    "designing effective prompts for large language models": (
        "Give the model a role, so that tone and depth fit the reader",
        "State the output format and show one short example of it",
        "Put the text to work on between delimiters, apart from the instructions",
        "Ask for steps before the conclusion when the task needs reasoning",
        "Keep a fixed set of test prompts and compare versions on it",
    ),
    "writing database migrations without downtime": (
        "Add columns as nullable first and backfill them in small batches",
        "Build indexes concurrently, so that writers are never locked out",
        "Deploy code that reads old and new schema before the schema changes",
        "Drop a column one release after the last reader is gone",
        "Rehearse every migration on a copy of production and time it",
    ),
    "handling secrets in continuous integration": (
        "Issue short-lived credentials through OIDC instead of storing keys",
        "Mask secret values in logs and fail the job when one is printed",
        "Scope each token to one repository and one environment",
        "Rotate credentials on a schedule and on every leak",
        "Keep forked pull requests away from protected variables",
    ),
    "monitoring background jobs": (
        "Record queue depth and the age of the oldest job",
        "Give every job an idempotency key, so that a retry does no harm",
        "Send a heartbeat and alert when it is late, not only when a job fails",
        "Keep failed jobs in a dead-letter queue with the payload and the error",
        "Trace a job back to the request that enqueued it",
    ),
    "making web pages accessible": (
        "Use headings, lists and landmarks for structure instead of styled divs",
        "Give every image a text alternative, empty for decoration",
        "Keep a contrast of at least 4.5 to 1 for body text",
        "Reach every control by keyboard and show where the focus is",
        "Announce live updates with an aria-live region",
    ),
    "planning capacity for seasonal traffic": (
        "Forecast from last year's peak and this year's growth, with a margin",
        "Load-test the whole path at twice the forecast",
        "Scale stateless tiers ahead of the peak, since autoscaling lags",
        "Agree beforehand which features are switched off under pressure",
        "Freeze risky deployments during the peak week",
    ),
    "reviewing pull requests": (
        "Read the description and the tests before the implementation",
        "Ask about intent first and style last",
        "Keep a change under four hundred lines, or split it",
        "Run the branch when behaviour changes and screenshots when layout does",
        "Approve what is better than before instead of waiting for perfect",
    ),
    "choosing a message broker": (
        "Decide whether you need a log to replay or a queue to drain",
        "Check ordering guarantees per partition, not per topic",
        "Compare delivery semantics: at most once, at least once, exactly once",
        "Count what operating it costs: brokers, disks, upgrades, on-call",
        "Measure end-to-end latency with your own payload sizes",
    ),
    "tuning garbage collection in Java services": (
        "Log pauses and allocation rate before changing any flag",
        "Size the young generation so that short-lived objects die there",
        "Prefer a low-pause collector where tail latency matters",
        "Cut allocations in hot loops, which no collector can match",
        "Leave headroom in the container above the heap",
    ),
    "testing data pipelines": (
        "Pin a small golden dataset with its expected output",
        "Check schema, null rates and row counts at every boundary",
        "Make each stage rerunnable over the same partition",
        "Compare aggregates with the previous day and alert on jumps",
        "Test late and duplicated events, since both will come",
    ),
    "securing public file uploads": (
        "Check the content itself, not the extension or the claimed type",
        "Store files outside the web root under random names",
        "Limit size while the body streams, before it is on disk",
        "Scan for malware in a sandbox before anybody can download",
        "Serve downloads from a separate domain with a strict content type",
    ),
    "documenting a command-line tool": (
        "Open with the one command most readers came for",
        "Show real output beside each example",
        "Generate the reference of options from the parser",
        "List exit codes and environment variables in one table",
        "Run every documented command in a test",
    ),
    "cutting cloud storage costs": (
        "Move cold objects to an archive tier by a lifecycle rule",
        "Delete incomplete multipart uploads and orphaned snapshots",
        "Compress and batch small files, which pay per request",
        "Tag buckets by team and publish the bill per tag",
        "Keep one replica where the data can be computed again",
    ),
    "rolling out feature flags": (
        "Give every flag an owner and a date on which it goes",
        "Ramp by a stable hash of the user, one percent first",
        "Watch error rate and conversion per variant",
        "Keep a kill switch that needs no deployment",
        "Remove the losing branch from the code within two weeks",
    ),
    "debugging memory leaks in Python": (
        "Compare tracemalloc snapshots before and after a fixed load",
        "Look for caches without a bound and callbacks never removed",
        "Follow references with gc.get_referrers from the leaking type",
        "Watch resident memory per worker, and restart none while you look",
        "Write a test that repeats the request and bounds the growth",
    ),
    "setting up on-call rotations": (
        "Page on symptoms that users feel, never on causes",
        "Write a runbook link into every alert",
        "Keep shifts to a week and follow the sun where offices allow",
        "Review each page afterwards and delete the useless ones",
        "Pay for nights, and give the morning after off",
    ),
    "building search for a product catalogue": (
        "Index synonyms and common misspellings from the query log",
        "Boost availability and recency after text relevance",
        "Facet on the attributes that people filter by",
        "Measure with judged queries and NDCG before any launch",
        "Answer empty results with the nearest category",
    ),
}
_KINDS = (
    "Research best practices for {t}.",
    "Write a short guide to {t}.",
    "What should a team know about {t}?",
    "List the most important steps for {t}.",
    "Explain {t} to a new colleague.",
    "Draft a checklist for {t}.",
    "Summarise what matters most in {t}.",
    "Give advice on {t} for a small company.",
    "Which mistakes are common in {t}, and how are they avoided?",
    "Prepare a five-minute talk on {t}.",
)
_FILLERS = (
    "It is important to note that this is a broad subject with many aspects.",
    "In general, it depends on the situation and on many factors.",
    "There are many tools and approaches, and each of them has its place.",
    "Teams should always try to follow best practices wherever possible.",
    "This can be a challenge, but with the right mindset it will be a success.",
)
_REASONS = (
    "Concrete and ordered; every step can be acted on. The other stays general.",
    "Covers the whole path of the task; the other repeats one point.",
    "Answers what was asked, with measures to check it by.",
    "Both are on the topic; this one names what to do first.",
)


@dataclass(frozen=True)
class Pair:
    """A constructed pair; `drifts` when its rejected answer is about another question."""

    prompt: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    reason: str
    drifts: bool


def pairs(count: int, seed: int = 0) -> Iterator[Pair]:
    """Pairs over the topics, every `DRIFT_EVERY`-th with a rejected answer that drifted; all prompts differ up to 180."""
    draw = random.Random(f"pairs {seed}")
    prompts = [(topic, kind) for kind in _KINDS for topic in TOPICS]
    for number in range(count):
        topic, kind = prompts[number % len(prompts)]
        drifts = number % DRIFT_EVERY == 0
        if number == 0:
            other = "designing effective prompts for large language models"
        else:
            other = draw.choice([name for name in TOPICS if name != topic])
        rejected = _good(other, draw, short=True) if drifts else _weak(topic, draw)
        chosen_score = 8.9 if number == 0 else round(draw.uniform(7.2, 9.6), 1)
        rejected_score = 5.4 if number == 0 else round(draw.uniform(2.8, 6.4), 1)
        reason = "The other answer is about another task." if drifts else draw.choice(_REASONS)
        prompt = kind.format(t=topic)
        yield Pair(prompt, _good(topic, draw), rejected, chosen_score, rejected_score, reason, drifts)


def _good(topic: str, draw: random.Random, *, short: bool = False) -> str:
    measures = draw.sample(TOPICS[topic], 3 if short else draw.choice((4, 5)))
    title = f"# Best practices for {topic}"
    listed = "\n".join(f"{place}. {text}." for place, text in enumerate(measures, start=1))
    return f"{title}\n\n{listed}\n\nStart with the first, measure, and go on only where it pays."


def _weak(topic: str, draw: random.Random) -> str:
    fillers = draw.sample(_FILLERS, 3)
    measure = draw.choice(TOPICS[topic])
    return f"{fillers[0]} When it comes to {topic}, {fillers[1][0].lower()}{fillers[1][1:]} {measure}. {fillers[2]}"


def lines(seed: int = 0) -> Iterator[dict[str, Any]]:
    """Every line of the file, in order: runs, their curves, then signals."""
    draw = random.Random(f"lines {seed}")
    end = START + timedelta(minutes=MINUTES)
    yield _run("dpo-1", "dpo", START, end, PLANNED)
    yield from _curves("dpo-1", STEPS, PLANNED, START, end, draw, floor=0.05, peak=2.0)
    orpo = START + timedelta(days=1)
    yield _run("orpo-1", "orpo", orpo, orpo + timedelta(minutes=6), 120)
    yield from _curves("orpo-1", 120, 120, orpo, orpo + timedelta(minutes=6), draw, floor=0.9, peak=2.4)
    made = list(pairs(N_PAIRS + N_EXPERIMENT, seed))
    for number, pair in enumerate(made):
        experiment = number >= N_PAIRS
        consumed = ["dpo-1"] + (["orpo-1"] if number < N_ORPO else [])
        yield {
            "type": "pair",
            "source": "experiment" if experiment else "grader",
            "prompt": pair.prompt,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "chosen_score": pair.chosen_score,
            "rejected_score": pair.rejected_score,
            "scale": "1-10",
            "judge": "evaluator",
            "reason": "kept against discarded on the same task" if experiment else pair.reason,
            "provenance": {"example": "tools/docs/page_data.py", "number": number + 1},
            "created_at": _time(START - timedelta(hours=6, minutes=-number)),
            "used_by": consumed,
        }
    for number, (prompt, response, score, good) in enumerate(_answers(seed + 1)):
        vote = number // 2 % 5 == 4
        yield {
            "type": "scalar",
            "source": "vote" if vote else "grader",
            "prompt": prompt,
            "response": response,
            "score": (1 if good else -1) if vote else score,
            "scale": "vote" if vote else "1-10",
            **({} if vote else {"judge": "evaluator"}),
            "provenance": {"example": "tools/docs/page_data.py", "number": number + 1},
            "created_at": _time(START - timedelta(hours=3, minutes=-number)),
        }


def _answers(seed: int) -> Iterator[tuple[str, str, float, bool]]:
    """(prompt, answer, score, whether it is the better one of two); the two answers of a prompt follow each other."""
    for pair in pairs(N_REWARDS // 2, seed):
        yield pair.prompt, pair.chosen, pair.chosen_score, True
        yield pair.prompt, pair.rejected, pair.rejected_score, False


def _run(ref: str, method: str, start: datetime, end: datetime, planned: int) -> dict[str, Any]:
    return {
        "type": "run",
        "ref": ref,
        "kind": "preference",
        "method": method,
        "status": "complete",
        "started_at": _time(start),
        "finished_at": _time(end),
        "planned_steps": planned,
        "base": "checkpoints",
        "recipe": {"learning_rate": 2e-4, "num_epochs": 3, "lr_scheduler": "linear"},
        "seed": 0,
        "message": "example data in the shape of a real run",
    }


def _curves(
    ref: str, steps: int, planned: int, start: datetime, end: datetime, draw: random.Random, *, floor: float, peak: float
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Loss falling fast and settling, accuracy to a plateau near 75 %, a gradient norm that calms, a linear rate."""
    span = (end - start).total_seconds()
    times = [round(start.timestamp() + span * step / steps, 3) for step in range(1, steps + 1)]
    shares = [step / planned for step in range(1, steps + 1)]
    fall = [math.exp(-18 * share) for share in shares]
    curves = {
        "train_loss": [max(0.004, floor + (peak - floor) * f + draw.gauss(0, 0.02 + 0.10 * f)) for f in fall],
        "mean_token_accuracy": [
            min(0.99, max(0.0, 0.75 - 0.25 * math.exp(-7 * s) + draw.gauss(0, 0.018))) for s in shares
        ],
        "grad_norm": [max(0.05, 0.9 + 3.2 * math.exp(-6 * s) + abs(draw.gauss(0, 0.35))) for s in shares],
        "learning_rate": [2e-4 * max(0.0, 1 - s) for s in shares],
    }
    for name, values in curves.items():
        digits = 9 if name == "learning_rate" else 5
        yield {
            "type": "series",
            "run": ref,
            "name": name,
            "steps": list(range(1, steps + 1)),
            "values": [round(value, digits) for value in values],
            "times": times,
        }


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    target = parser.parse_args().file
    target.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines()), encoding="utf-8"
    )
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
