"""Questions with a checkable answer that can be given in several styles: brief, blunt, polite, padded.

Three kinds. `fact`: a short document and a question whose answer must be copied from it. `advice`: how a
kind of office text should be written, from a closed list of topics. `refusal`: the document does not say, or
the question asks for a secret. Without an instruction any style is right, so preference training has
something to move; the checks here tell style and substance apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from zlib import crc32

from dlm.errors import DlmError
from dlm.tasks import style_text as text
from dlm.tasks.draw import Draw
from dlm.tasks.memos import Fact, draw_memo
from dlm.tasks.topics import TOPICS, Topic

__all__ = [
    "KINDS",
    "STYLES",
    "STYLE_SHARES",
    "Kind",
    "Style",
    "StyleCase",
    "answer",
    "case_at",
    "fact_right",
    "generate",
    "is_blunt",
    "is_brief",
    "is_held_out",
    "is_padded",
    "is_polite",
    "on_topic",
    "refuses",
    "style_of",
]

Kind = Literal["fact", "advice", "refusal"]
Style = Literal["brief", "blunt", "polite", "padded"]
Split = Literal["train", "held_out"]
KINDS: tuple[Kind, ...] = ("fact", "advice", "refusal")
STYLES: tuple[Style, ...] = ("brief", "blunt", "polite", "padded")
# Of uninstructed answers: brief and blunt ones are both short, 45 % together.
STYLE_SHARES: tuple[tuple[Style, float], ...] = (
    ("brief", 0.34),
    ("blunt", 0.11),
    ("polite", 0.15),
    ("padded", 0.40),
)
_BRIEF_WORDS = 16
_PADDED_WORDS = 34


@dataclass(frozen=True)
class StyleCase:
    """A question, with what a right answer must hold.

    system: the system prompt, where the case has one (a style instruction).
    question: the whole user message, document included.
    wanted: the style that was asked for, in the system prompt or the question; `None` when it is free.
    subject: what the question is about, such as `the audit` or `release notes`.
    value: the fact to copy; empty for advice and refusals.
    rivals: values that would be wrong here (facts only).
    points: phrases of which an on-topic answer holds some (advice only).
    gold: the shortest right answer.
    """

    seed: int
    index: int
    kind: Kind
    system: str | None
    question: str
    wanted: Style | None
    subject: str
    value: str
    rivals: tuple[str, ...]
    points: tuple[str, ...]
    gold: str
    fact: Fact | None = None


def generate(
    seed: int,
    count: int,
    kinds: tuple[Kind, ...] = ("fact", "advice"),
    *,
    instructed: float = 0.0,
    split: Split = "held_out",
) -> list[StyleCase]:
    """The first `count` cases of a seed.

    kinds: which kinds, cycled through in this order.
    instructed: share of the cases that ask for a style.
    split: advice questions come from a closed list, of which a tenth (`is_held_out`) is never trained on:
        `held_out` asks those only, `train` the others. Facts and refusals are fresh for every seed.
    """
    return [
        case_at(seed, index, kinds[index % len(kinds)], instructed=instructed, split=split)
        for index in range(count)
    ]


def case_at(
    seed: int,
    index: int,
    kind: Kind,
    *,
    instructed: float = 0.0,
    split: Split = "held_out",
    facts: tuple[int, int] = (2, 6),
) -> StyleCase:
    """Case `index` of a seed; its document, if any, states `facts[0]` to `facts[1]` facts.

    Raises `DlmError` for an unknown kind.
    """
    if kind not in KINDS:
        raise DlmError(f"unknown kind of style case {kind!r}; known: {', '.join(KINDS)}")
    draw = Draw("style", kind, seed, index, split)
    make = {"fact": _fact_case, "advice": _advice_case, "refusal": _refusal_case}[kind]
    case = make(draw, seed, index, split, facts)
    return _instruct(draw, case) if draw.chance(instructed) else case


def is_held_out(question: str) -> bool:
    """Whether an advice question (without style instruction) belongs to the tenth that is never trained on."""
    return crc32(question.encode()) % 10 == 0


def answer(case: StyleCase, style: Style, variant: int = 0) -> str:
    """A right answer to the case in a style; each variant is another wording (the number of wordings is finite)."""
    draw = Draw("answer", case.kind, case.seed, case.index, style, variant)
    if case.kind == "advice":
        topic = next(topic for topic in TOPICS if topic.name == case.subject)
        return text.advice(draw, topic, style)
    if case.fact is not None and case.kind == "fact":
        return text.fact(draw, case.fact, style)
    return text.refusal(draw, style, case.subject if case.fact else "")


def fact_right(case: StyleCase, reply: str) -> bool:
    """The reply holds the fact as a whole phrase, and none of the document's other values.

    Where one value stands inside another, the longer one is what was said: `28 June` neither gives nor spoils `28`.
    """
    longest_first = sorted((case.value, *case.rivals), key=len, reverse=True)
    said = re.findall("|".join(map(_whole, longest_first)), reply, flags=re.IGNORECASE)
    return {value.lower() for value in said} == {case.value.lower()}


def on_topic(case: StyleCase, reply: str) -> bool:
    """The reply is about what was asked.

    Advice: it holds a point of the topic, and neither another topic's name nor more foreign points than its
    own. Fact: it names the value or the subject. Refusal: it refuses.
    """
    if case.kind == "refusal":
        return refuses(reply)
    if case.kind == "fact":
        return _holds(reply, case.value) or _holds(reply, case.subject)
    strangers = [topic for topic in TOPICS if topic.name != case.subject]
    own = [point for point in case.points if _holds(reply, point)]
    rest = reply.lower()
    # Longest first: the rule "use short sections" must not leave the quality "short" behind.
    for phrase in sorted((*own, case.subject), key=len, reverse=True):
        rest = rest.replace(phrase, " ")
    foreign = {point for topic in strangers for point in _points(topic) if _holds(rest, point)}
    return len(own) > len(foreign) and not any(_holds(rest, topic.name) for topic in strangers)


def refuses(reply: str) -> bool:
    """The reply says that it cannot or will not tell, or that the text does not say."""
    return any(_holds(reply, mark) for mark in text.REFUSAL_MARKS)


def is_padded(reply: str) -> bool:
    """The reply opens or ends with filler that says nothing, or has more than 34 words."""
    return any(_holds(reply, mark) for mark in text.FILLER_MARKS) or len(reply.split()) > _PADDED_WORDS


def is_polite(reply: str) -> bool:
    """The reply has a courtesy (please, thank you, of course, …) and is not padded."""
    return any(_holds(reply, mark) for mark in text.COURTESY_MARKS) and not is_padded(reply)


def is_brief(reply: str) -> bool:
    """The reply has 1 to 16 words and neither filler nor courtesy."""
    return 1 <= len(reply.split()) <= _BRIEF_WORDS and not is_padded(reply) and not is_polite(reply)


def is_blunt(reply: str) -> bool:
    """A brief reply with a curt remark."""
    return is_brief(reply) and any(_holds(reply, mark) for mark in text.BLUNT_MARKS)


def style_of(reply: str) -> Style | None:
    """The style of a reply; `None` when it fits none (such as 25 plain words)."""
    if is_padded(reply):
        return "padded"
    if is_polite(reply):
        return "polite"
    if is_blunt(reply):
        return "blunt"
    return "brief" if is_brief(reply) else None


def _fact_case(draw: Draw, seed: int, index: int, split: Split, facts: tuple[int, int]) -> StyleCase:
    memo = draw_memo(draw, facts)
    fact = draw.choice(memo.facts)
    question = text.with_document(draw, memo.text, fact.question(draw.integer(0, 5)))
    return StyleCase(
        seed,
        index,
        "fact",
        None,
        question,
        None,
        fact.subject,
        fact.value,
        memo.rivals(fact),
        (),
        f"{text.capital(fact.value)}.",
        fact,
    )


def _refusal_case(draw: Draw, seed: int, index: int, split: Split, facts: tuple[int, int]) -> StyleCase:
    if draw.chance(0.3):
        return StyleCase(
            seed,
            index,
            "refusal",
            None,
            draw.choice(text.SECRET_QUESTIONS),
            None,
            "",
            "",
            (),
            (),
            text.SECRET_GOLD,
        )
    memo = draw_memo(draw, facts)
    missing = memo.missing
    question = text.with_document(draw, memo.text, missing.question(draw.integer(0, 5)))
    return StyleCase(
        seed, index, "refusal", None, question, None, missing.subject, "", (), (), text.MISSING_GOLD, missing
    )


def _advice_case(draw: Draw, seed: int, index: int, split: Split, facts: tuple[int, int]) -> StyleCase:
    while True:
        topic = draw.choice(TOPICS)
        question = text.advice_question(draw, topic.name)
        if is_held_out(question) == (split == "held_out"):
            break
    gold = f"{text.capital(topic.qualities[0])} and {topic.qualities[1]}."
    return StyleCase(seed, index, "advice", None, question, None, topic.name, "", (), _points(topic), gold)


def _instruct(draw: Draw, case: StyleCase) -> StyleCase:
    style = draw.choice(STYLES)
    order = draw.choice(text.STYLE_ORDERS[style])
    in_system = draw.chance(0.5)
    question = case.question if in_system else f"{case.question} {order}"
    return StyleCase(
        case.seed, case.index, case.kind, order if in_system else None, question, style, case.subject, case.value, case.rivals, case.points, case.gold, case.fact
    )  # fmt: skip


def _points(topic: Topic) -> tuple[str, ...]:
    return topic.qualities + topic.rules


def _holds(reply: str, phrase: str) -> bool:
    """Whether the phrase stands in the reply as whole words, letter case aside."""
    return re.search(_whole(phrase), reply, flags=re.IGNORECASE) is not None


def _whole(phrase: str) -> str:
    # Digits next to `$ . : -` belong to another amount, time or code: 70 is not in LU-370, $70K or 8:70.
    return rf"(?<![\w$.:-]){re.escape(phrase)}(?!\w|[.:-]\d)"
