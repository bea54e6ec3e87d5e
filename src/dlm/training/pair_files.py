"""Preference pairs and scored answers from files of JSON lines.

`--pairs` reads what the field writes: TRL's `prompt/chosen/rejected`, as texts or as conversations, and OpenAI's
`input/preferred_output/non_preferred_output`. `--scalars` reads answers with a score each, of which every two that
are far enough apart make a pair for the reward phase.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dlm.training.json_lines import (
    LineError,
    known_fields,
    number_of,
    read_json_lines,
    require_roles,
    text_of,
    turns_of,
)
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

_SCORES: Final = (("chosen_score", "rejected_score"), ("score_chosen", "score_rejected"))
_TRL: Final = ("prompt", "chosen", "rejected")
_OPENAI: Final = ("input", "preferred_output", "non_preferred_output")
_PAIR_KEYS: Final = {*_TRL, *_OPENAI, *_SCORES[0], *_SCORES[1], "id", "prompt_id"}  # an id changes no pair
_PAIR_SHAPES: Final = (
    "the keys prompt+chosen+rejected, or chosen+rejected as conversations that begin alike, or "
    "input+preferred_output+non_preferred_output, with two scores at will"
)
_SCALAR_KEYS: Final = {"prompt", "response", "completion", "score", "reward", "id", "prompt_id"}
_SCALAR_SHAPES: Final = "the keys prompt, response (or completion) and score (or reward)"


@dataclass(frozen=True)
class Scalar:
    """One answer to a prompt with its score, the higher the better. `line` is its place in the file `origin` (1-based)."""

    prompt: str
    response: str
    score: float
    origin: str
    line: int

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
        return _pair_of_json(item, str(path), line, system_prompt)

    example = '{"prompt": "…", "chosen": "…", "rejected": "…"}'
    return read_json_lines(path, read, noun="pairs", flag="--pairs", example=example)


def _pair_of_json(item: Any, origin: str, line: int, system_prompt: str | None) -> Pair:
    fields = known_fields(item, _PAIR_KEYS, _PAIR_SHAPES)
    keys = next((keys for keys in (_TRL, _OPENAI) if keys[1] in fields and keys[2] in fields), None)
    if keys is None or any(key in fields for key in {*_TRL, *_OPENAI} - set(keys)):
        raise LineError(f"expected {_PAIR_SHAPES}; found {_named(fields, item)}")
    prompt_key, chosen_key, rejected_key = keys
    prompt = fields.get(prompt_key)
    if keys is _OPENAI:
        prompt, prompt_key = _openai_messages(prompt), "input.messages"
    questions = {} if prompt is None else {prompt_key: _question(prompt, prompt_key, system_prompt)}
    answers = []
    for key in (chosen_key, rejected_key):
        question, answer = _answer(fields[key], key, system_prompt)
        answers.append(answer)
        if question is not None:
            questions[key] = question
    if not questions:
        raise LineError(f"no {prompt_key}: expected {_PAIR_SHAPES}")
    if len(set(questions.values())) > 1:
        raise LineError(f"{' and '.join(questions)} do not begin with the same question")
    chosen_score, rejected_score = _scores(fields)
    return Pair(
        next(iter(questions.values())),
        answers[0],
        answers[1],
        origin,
        line,
        chosen_score=chosen_score,
        rejected_score=rejected_score,
    )


def _named(fields: dict[str, Any], item: dict[str, Any]) -> str:
    empty = sorted(item.keys() - fields.keys())
    return f"{', '.join(sorted(fields)) or 'none of them'}" + (
        f"; empty: {', '.join(empty)}" if empty else ""
    )


def _openai_messages(value: Any) -> Any:
    """The messages of OpenAI's `input`; tools, which dlm does not train on, are refused."""
    expected = "input to be an object of messages, tools and parallel_tool_calls"
    fields = known_fields(value, {"messages", "tools", "parallel_tool_calls"}, expected)
    if "tools" in fields:
        raise LineError("input.tools: dlm does not train on calls of tools")
    return fields.get("messages")


def _question(value: Any, name: str, system_prompt: str | None) -> str:
    if not isinstance(value, list):
        return text_of(value, name)
    turns = turns_of(value, name, system_prompt)
    require_roles(turns, ("user",), name)
    return turns[0][1]


def _answer(value: Any, name: str, system_prompt: str | None) -> tuple[str | None, str]:
    """An answer, with the question before it when the value is a whole conversation."""
    if not isinstance(value, list):
        return None, text_of(value, name)
    turns = turns_of(value, name, system_prompt)
    if len(turns) == 1:
        require_roles(turns, ("assistant",), name)
        return None, turns[0][1]
    require_roles(turns, ("user", "assistant"), name)
    return turns[0][1], turns[1][1]


def _scores(fields: dict[str, Any]) -> tuple[float, float] | tuple[None, None]:
    named = [names for names in _SCORES if any(name in fields for name in names)]
    if not named:
        return None, None
    if len(named) > 1 or any(name not in fields for name in named[0]):
        raise LineError("expected both scores or none: chosen_score and rejected_score")
    chosen, rejected = named[0]
    return number_of(fields[chosen], chosen), number_of(fields[rejected], rejected)


def read_scalars_file(path: Path, system_prompt: str | None = None) -> list[Scalar]:
    """Read scored answers from JSON lines: `{"prompt", "response", "score"}`, the higher score the better.

    `completion` may stand for `response` and `reward` for `score`; prompt and response may be lists of one message.

    Raises:
        DocumentError: the bad lines, with their numbers.
        UsageError: the file cannot be read, or holds no scored answers.
    """

    def read(item: Any, line: int) -> Scalar:
        return _scalar_of_json(item, str(path), line, system_prompt)

    example = '{"prompt": "…", "response": "…", "score": 0.5}'
    return read_json_lines(path, read, noun="scalars", flag="--scalars", example=example)


def _scalar_of_json(item: Any, origin: str, line: int, system_prompt: str | None) -> Scalar:
    fields = known_fields(item, _SCALAR_KEYS, _SCALAR_SHAPES)
    responses = [key for key in ("response", "completion") if key in fields]
    scores = [key for key in ("score", "reward") if key in fields]
    if "prompt" not in fields or len(responses) != 1 or len(scores) != 1:
        raise LineError(f"expected {_SCALAR_SHAPES}; found {_named(fields, item)}")
    prompt = _question(fields["prompt"], "prompt", system_prompt)
    question, response = _answer(fields[responses[0]], responses[0], system_prompt)
    if question is not None and question != prompt:
        raise LineError(f"prompt and {responses[0]} do not begin with the same question")
    return Scalar(prompt, response, number_of(fields[scores[0]], scores[0]), origin, line)


def pairs_from_scalars(scalars: Sequence[Scalar], min_margin: float) -> tuple[list[Pair], ScalarCounts]:
    """Every two answers to one prompt whose scores differ by more than `min_margin`, as pairs, the better one chosen.

    An answer that was scored several times counts once, with the mean of its scores. Of a prompt with more than
    `MAX_RESPONSES` answers, the best, the worst and evenly spaced ones between them are compared. Pairs stand in the
    order of their prompts in the file, the best answers' first; a pair's line is the chosen answer's.
    """
    by_prompt: dict[str, dict[str, list[Scalar]]] = {}
    for scalar in scalars:
        by_prompt.setdefault(scalar.prompt, {}).setdefault(scalar.response, []).append(scalar)
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
        prompts=len(by_prompt),
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
    return first if len(same) == 1 else Scalar(first.prompt, first.response, score, first.origin, first.line)


def _spread(ranked: Sequence[Scalar], limit: int) -> list[Scalar]:
    """At most `limit` of the answers: first, last, and evenly spaced ranks between them."""
    if len(ranked) <= limit:
        return list(ranked)
    return [ranked[round(i * (len(ranked) - 1) / (limit - 1))] for i in range(limit)]
