"""Preference pairs and scored answers from files of JSON lines.

`--pairs` reads what the field writes: TRL's `prompt/chosen/rejected`, as texts or as conversations, and OpenAI's
`input/preferred_output/non_preferred_output`. `--scalars` reads answers with a score each, of which every two that
are far enough apart make a pair for the reward phase.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from dlm.document.json_lines import read_json_lines
from dlm.document.pair_lines import pair_of_json, scalar_of_json
from dlm.training.pairs import Pair

__all__ = [
    "MAX_RESPONSES",
    "Scalar",
    "ScalarCounts",
    "pairs_from_scalars",
    "read_pairs_file",
    "read_scalars_file",
]

MAX_RESPONSES: Final = 9
"""Answers of one prompt that are compared with each other: 36 pairs at most, the top of what InstructGPT used (4 to 9
answers, arXiv 2203.02155), so that a prompt sampled a hundred times does not outweigh all others with 4,950 pairs."""


@dataclass(frozen=True)
class Scalar:
    """One answer to a prompt with its score, the higher the better. `line` is its place in the file `origin` (1-based).

    Scores of different scales (a judge's, votes) say nothing about each other: only answers of one `scale` are compared.
    """

    prompt: str
    response: str
    score: float
    origin: str
    line: int
    scale: str = ""

    @property
    def place(self) -> str:
        return f"{self.origin}:{self.line}"


@dataclass(frozen=True)
class ScalarCounts:
    """What became of scored answers, for display."""

    scalars: int
    prompts: int
    lone: int  # prompts with one answer, which make no pair
    repeated: int  # scores of an answer that had one already; its score is their mean
    over_limit: int  # answers left out because their prompt has more than MAX_RESPONSES
    below_margin: int  # pairs of answers whose scores do not differ by more than the margin
    pairs: int


def read_pairs_file(path: Path, system_prompt: str | None = None) -> list[Pair]:
    """Read preference pairs from JSON lines.

    Accepted per line, each with optional numbers `chosen_score` and `rejected_score` (or `score_chosen` and
    `score_rejected`):

    - `{"prompt", "chosen", "rejected"}`, each a text or a list of messages: the prompt is one user message, an answer
      is one assistant message or the whole conversation (TRL's standard and conversational formats);
    - `{"chosen", "rejected"}`, both whole conversations that begin with the same question (TRL's implicit prompt);
    - `{"input": {"messages"}, "preferred_output", "non_preferred_output"}` (OpenAI).

    A system message must be the document's own `system_prompt`.

    Raises:
        DocumentError: the bad lines, with their numbers.
        UsageError: the file cannot be read, or holds no pairs.
    """

    def read(item: Any, line: int) -> Pair:
        found = pair_of_json(item, system_prompt)
        return Pair(
            found.prompt,
            found.chosen,
            found.rejected,
            str(path),
            line,
            chosen_score=found.chosen_score,
            rejected_score=found.rejected_score,
        )

    example = '{"prompt": "…", "chosen": "…", "rejected": "…"}'
    return read_json_lines(path, read, noun="pairs", flag="--pairs", example=example)


def read_scalars_file(path: Path, system_prompt: str | None = None) -> list[Scalar]:
    """Read scored answers from JSON lines: `{"prompt", "response", "score"}`, the higher score the better.

    `completion` may stand for `response` and `reward` for `score`; prompt and response may be lists of one message.

    Raises:
        DocumentError: the bad lines, with their numbers.
        UsageError: the file cannot be read, or holds no scored answers.
    """

    def read(item: Any, line: int) -> Scalar:
        found = scalar_of_json(item, system_prompt)
        return Scalar(found.prompt, found.response, found.score, str(path), line)

    example = '{"prompt": "…", "response": "…", "score": 0.5}'
    return read_json_lines(path, read, noun="scalars", flag="--scalars", example=example)


def pairs_from_scalars(scalars: Sequence[Scalar], min_margin: float) -> tuple[list[Pair], ScalarCounts]:
    """Every two answers to one prompt whose scores, of one scale, differ by more than `min_margin`, as pairs, the better
    one chosen.

    An answer that was scored several times counts once, with the mean of its scores. Of a prompt with more than
    `MAX_RESPONSES` answers, the best, the worst and evenly spaced ones between them are compared. Pairs stand in the
    order of their prompts in the file, the best answers' first; a pair's line is the chosen answer's.
    """
    by_prompt: dict[tuple[str, str], dict[str, list[Scalar]]] = {}
    for scalar in scalars:
        asked = by_prompt.setdefault((scalar.prompt, scalar.scale), {})
        asked.setdefault(scalar.response, []).append(scalar)
    pairs: list[Pair] = []
    over_limit = below_margin = 0
    for responses in by_prompt.values():
        ranked = sorted((_mean(same) for same in responses.values()), key=lambda one: (-one.score, one.line))
        kept = _spread(ranked, MAX_RESPONSES)
        over_limit += len(ranked) - len(kept)
        for index, better in enumerate(kept):
            for worse in kept[index + 1 :]:
                gap = better.score - worse.score
                if gap > min_margin and not math.isclose(gap, min_margin):  # as written: .7 - .4 is .3
                    pairs.append(_pair_of(better, worse))
                else:
                    below_margin += 1
    counts = ScalarCounts(
        scalars=len(scalars),
        prompts=len({prompt for prompt, _ in by_prompt}),
        lone=sum(len(responses) == 1 for responses in by_prompt.values()),
        repeated=len(scalars) - sum(len(responses) for responses in by_prompt.values()),
        over_limit=over_limit,
        below_margin=below_margin,
        pairs=len(pairs),
    )
    return pairs, counts


def _pair_of(better: Scalar, worse: Scalar) -> Pair:
    return Pair(
        better.prompt,
        better.response,
        worse.response,
        better.origin,
        better.line,
        chosen_score=better.score,
        rejected_score=worse.score,
    )


def _mean(same: Sequence[Scalar]) -> Scalar:
    """One answer's scalars as one, at the place of the first."""
    first = same[0]
    score = sum(one.score / len(same) for one in same)  # divided first: a sum of large scores could overflow
    return first if len(same) == 1 else replace(first, score=score)


def _spread(ranked: Sequence[Scalar], limit: int) -> list[Scalar]:
    """At most `limit` of the answers: first, last, and evenly spaced ranks between them."""
    if len(ranked) <= limit:
        return list(ranked)
    return [ranked[round(i * (len(ranked) - 1) / (limit - 1))] for i in range(limit)]
