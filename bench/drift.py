"""How well the topic-drift flag tells a leaked answer from a merely worse one, on constructed data.

Each kind of data gives (question, good answer, worse answer to the same question). In half of the pairs the worse answer
is replaced by an answer to another question of the same kind: those should be flagged, the others should not.
`known` says whether the question that the leaked answer belongs to is among those the document has.

    python bench/drift.py [--pairs 400] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from report import write_report
from tools.docs import page_data

from dlm.review import drift
from dlm.tasks import style


class Case(NamedTuple):
    """A question, what it is about, a good answer and a worse one."""

    question: str
    topic: str
    good: str
    worse: str


def advice(count: int, seed: int, better: style.Style, worse: style.Style) -> list[Case]:
    """Advice on office texts; both answers right, in two styles."""
    cases = style.generate(seed, count, ("advice",), split="train")
    return [Case(c.question, c.subject, style.answer(c, better), style.answer(c, worse, 1)) for c in cases]


def facts(count: int, seed: int) -> list[Case]:
    """Questions about a document that stands in the prompt."""
    cases = style.generate(seed, count, ("fact",))
    return [Case(c.question, f"{i}", style.answer(c, "brief"), style.answer(c, "padded", 1)) for i, c in enumerate(cases)]  # fmt: skip


def guides(count: int, seed: int) -> list[Case]:
    """Guides to engineering topics against vague ones, as in the example data."""
    found = []
    for pair in page_data.pairs(count * 2, seed):
        if not pair.drifts:
            topic = next(topic for topic in page_data.TOPICS if topic in pair.prompt)
            found.append(Case(pair.prompt, topic, pair.chosen, pair.rejected))
    return found[:count]


def measure(cases: Sequence[Case], seed: int, *, known: bool) -> dict[str, Any]:
    """Flags against truth; half of the cases get the good answer of a case about something else."""
    draw = random.Random(seed)
    leaked = set(draw.sample(range(len(cases)), len(cases) // 2))
    kept = [case.question for i, case in enumerate(cases) if known or i in leaked or i % 4 == 0]
    topics = drift.Topics(kept)
    right = wrong = missed = 0
    began = time.process_time()
    for i, case in enumerate(cases):
        rejected = case.worse
        if i in leaked:
            rejected = draw.choice([other.good for other in cases if other.topic != case.topic])
        found = topics.measure(case.question, case.good, rejected)
        flagged = found is not None and found.drifts
        right += flagged and i in leaked
        wrong += flagged and i not in leaked
        missed += not flagged and i in leaked
    elapsed = time.process_time() - began
    return {
        "leaked": len(leaked),
        "flagged of leaked": round(right / len(leaked), 3),
        "flagged of others": round(wrong / (len(cases) - len(leaked)), 3),
        "ms a pair": round(1000 * elapsed / len(cases), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    n, seed = options.pairs, options.seed
    kinds = {
        "guides, titled": guides(n, seed),
        "advice, polite against padded": advice(n, seed, "polite", "padded"),
        "advice, brief against blunt": advice(n, seed, "brief", "blunt"),
        "facts of a document in the prompt": facts(n, seed),
    }
    rows = [
        {"data": name, "known": known, **measure(cases, seed, known=known)}
        for name, cases in kinds.items()
        for known in (True, False)
    ]
    write_report(
        "drift", rows, pairs=n, seed=seed, far=drift.FAR, more_own=drift.MORE_OWN, more_other=drift.MORE_OTHER
    )


if __name__ == "__main__":
    main()
