"""The judge of `study_loop.py`, as a command that mining runs: brief answers on the topic, and nothing else.

0 for an answer off the topic, .5 for one on it, 1 for a brief one on it. Whether a fact is right it does not look at: that
is what the study watches, and a judge that scored it would teach it. It knows what a question is about because it makes
the same questions again from the same seeds.

    cli-stream:python bench/brief_judge.py SEED ROUND
"""

from __future__ import annotations

import json
import sys

from dlm.tasks import style

ASKED = 400  # questions of a round
KINDS: tuple[style.Kind, ...] = ("fact", "advice")
_FIRST_SEED = 700_000


def asked(seed: int, number: int) -> list[style.StyleCase]:
    """The questions of one round of one seed, each once; facts and advice by turns."""
    return unique(_FIRST_SEED + 1000 * number + seed, ASKED, "train")


def unique(seed: int, count: int, split: style.Split) -> list[style.StyleCase]:
    """So many different questions, half of them for a fact and half for advice."""
    found: list[style.StyleCase] = []
    for kind in KINDS:
        cases = {case.question: case for case in style.generate(seed, 10 * count, (kind,), split=split)}
        found += list(cases.values())[: count // len(KINDS)]
    if len(found) != count:
        raise SystemExit(f"seed {seed} has {len(found)} different questions, not {count}")
    return found


def score(case: style.StyleCase, candidate: str) -> tuple[float, str]:
    """The score and why."""
    if not style.on_topic(case, candidate):
        return 0.0, "off the topic"
    return (1.0, "brief, on the topic") if style.is_brief(candidate) else (0.5, "on the topic, not brief")


def main() -> None:
    cases = {case.question: case for case in asked(int(sys.argv[1]), int(sys.argv[2]))}
    for line in sys.stdin:
        item = json.loads(line)
        value, reasoning = score(cases[item["prompt"]], item["candidate"])
        print(json.dumps({"id": item["id"], "score": value, "reasoning": reasoning}), flush=True)


if __name__ == "__main__":
    main()
