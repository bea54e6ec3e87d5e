"""Pairs and scored answers as one JSON value each: the shapes of the field, read without guessing.

TRL's `prompt/chosen/rejected`, as texts or as conversations; OpenAI's `input/preferred_output/non_preferred_output`; and
answers with a score. What does not fit raises `LineError` in words for the user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from dlm.document.json_lines import LineError, known_fields, number_of, require_roles, text_of, turns_of

__all__ = ["PAIR_SHAPES", "SCALAR_SHAPES", "JsonPair", "JsonScalar", "pair_of_json", "scalar_of_json"]

_SCORES: Final = (("chosen_score", "rejected_score"), ("score_chosen", "score_rejected"))
_TRL: Final = ("prompt", "chosen", "rejected")
_OPENAI: Final = ("input", "preferred_output", "non_preferred_output")
_PAIR_KEYS: Final = {*_TRL, *_OPENAI, *_SCORES[0], *_SCORES[1], "id", "prompt_id"}  # an id changes no pair
PAIR_SHAPES: Final = (
    "the keys prompt+chosen+rejected, or chosen+rejected as conversations that begin alike, or "
    "input+preferred_output+non_preferred_output, with two scores at will"
)
_SCALAR_KEYS: Final = {"prompt", "response", "completion", "score", "reward", "id", "prompt_id"}
SCALAR_SHAPES: Final = "the keys prompt, response (or completion) and score (or reward)"


@dataclass(frozen=True)
class JsonPair:
    """A pair as a line has it; scores where it names them."""

    prompt: str
    chosen: str
    rejected: str
    chosen_score: float | None = None
    rejected_score: float | None = None


@dataclass(frozen=True)
class JsonScalar:
    """An answer with its score, the higher the better."""

    prompt: str
    response: str
    score: float


def pair_of_json(item: Any, system_prompt: str | None) -> JsonPair:
    """The pair of a line, in one of the shapes `PAIR_SHAPES`; a system message must be `system_prompt`.

    Raises:
        LineError: another shape, another system message, a text that is empty or that no file can hold.
    """
    fields = known_fields(item, _PAIR_KEYS, PAIR_SHAPES)
    keys = next((keys for keys in (_TRL, _OPENAI) if keys[1] in fields and keys[2] in fields), None)
    if keys is None or any(key in fields for key in {*_TRL, *_OPENAI} - set(keys)):
        raise LineError(f"expected {PAIR_SHAPES}; found {_named(fields, item)}")
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
        raise LineError(f"no {prompt_key}: expected {PAIR_SHAPES}")
    if len(set(questions.values())) > 1:
        raise LineError(f"{' and '.join(questions)} do not begin with the same question")
    chosen_score, rejected_score = _scores(fields)
    return JsonPair(next(iter(questions.values())), answers[0], answers[1], chosen_score, rejected_score)


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


def scalar_of_json(item: Any, system_prompt: str | None) -> JsonScalar:
    """The scored answer of a line; a system message must be `system_prompt`.

    Raises:
        LineError: another shape, another system message, a text that is empty, a score that is no finite number.
    """
    fields = known_fields(item, _SCALAR_KEYS, SCALAR_SHAPES)
    responses = [key for key in ("response", "completion") if key in fields]
    scores = [key for key in ("score", "reward") if key in fields]
    if "prompt" not in fields or len(responses) != 1 or len(scores) != 1:
        raise LineError(f"expected {SCALAR_SHAPES}; found {_named(fields, item)}")
    prompt = _question(fields["prompt"], "prompt", system_prompt)
    question, response = _answer(fields[responses[0]], responses[0], system_prompt)
    if question is not None and question != prompt:
        raise LineError(f"prompt and {responses[0]} do not begin with the same question")
    return JsonScalar(prompt, response, number_of(fields[scores[0]], scores[0]))
