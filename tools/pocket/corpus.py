"""What pocket reads while it is trained: one stream of documents, each a function of (seed, number, progress).

Evaluation seeds start at `FIRST_EVALUATION_SEED`; the corpus uses none of them. Advice questions come from
the part of the closed list that `style.is_held_out` leaves for training.
"""

from __future__ import annotations

from dataclasses import dataclass

from dlm.tasks import memos, names, spreadsheet, style, style_text
from dlm.tasks.draw import Draw
from tools.pocket import prose

__all__ = ["CORPUS_SEED", "FIRST_EVALUATION_SEED", "Document", "document"]

CORPUS_SEED = 770_001
FIRST_EVALUATION_SEED = 900_000
# Table lengths grow over the first part of the run; long ones come in after it.
_GROWTH_END = 0.35
_LONG_FROM = 0.40
_LONG_ROWS = (13, 48)


@dataclass(frozen=True)
class Document:
    """Chat messages as (role, text), or one piece of prose as the single role `prose`."""

    kind: str
    messages: tuple[tuple[str, str], ...]


# Shares of documents, not of tokens: tables are long, so almost half of the tokens are tables.
_MIX = (
    ("table", 0.20), ("long_table", 0.045), ("list", 0.05), ("fact", 0.24), ("interview", 0.26), ("advice", 0.18), ("refusal", 0.06),
    ("money", 0.05), ("header", 0.03), ("prose", 0.08), ("definition", 0.03), ("talk", 0.01), ("copy", 0.04),
    ("rewrite", 0.03), ("turns", 0.02),
)  # fmt: skip
_INSTRUCTED = 0.3
# Of later answers, mostly brief: fillers between questions only cost tokens. The first is drawn as everywhere.
_INTERVIEW_STYLES: tuple[tuple[style.Style, float], ...] = (
    ("brief", 0.7),
    ("blunt", 0.1),
    ("polite", 0.1),
    ("padded", 0.1),
)


def document(number: int, progress: float) -> Document:
    """Document `number` of the stream; `progress` (0–1) says how far training is and sets the table lengths."""
    draw = Draw("pocket corpus", CORPUS_SEED, number)
    kind = draw.weighted(_MIX)
    if kind == "long_table" and progress < _LONG_FROM:
        kind = "table"
    if kind == "table":
        longest = 2 + round(10 * min(1.0, progress / _GROWTH_END))
        return _chat(kind, draw, *_table(number, (2, longest)))
    if kind == "long_table":
        return _chat(kind, draw, *_table(number, _LONG_ROWS))
    for styled in style.KINDS:
        if kind == styled:
            return _styled(styled, number, draw)
    if kind == "interview":
        return _interview(draw)
    if kind == "turns":
        first, second = _styled("advice", number, draw), _styled("advice", -number, draw)
        return Document(kind, (*first.messages, *(m for m in second.messages if m[0] != "system")))
    if kind == "prose":
        text = prose.paragraph(draw) if draw.chance(0.6) else prose.topic_paragraph(draw)
        return Document(kind, (("prose", text),))
    make = {
        "list": _list,
        "money": _money,
        "header": _header,
        "definition": _definition,
        "talk": _talk,
        "copy": _copy,
        "rewrite": _rewrite,
    }
    return _chat(kind, draw, *make[kind](draw))


def _chat(kind: str, draw: Draw, question: str, answer: str) -> Document:
    system = (
        (("system", draw.choice(("You are a helpful assistant.", "You help with office work."))),)
        if draw.chance(0.08)
        else ()
    )
    return Document(kind, (*system, ("user", question), ("assistant", answer)))


def _styled(kind: style.Kind, number: int, draw: Draw) -> Document:
    # A third of the documents are short: finding one fact among two teaches what finding one among seven needs.
    facts = (1, 3) if draw.chance(0.35) else (3, 7)
    case = style.case_at(CORPUS_SEED, number, kind, instructed=_INSTRUCTED, split="train", facts=facts)
    wanted = draw.weighted(style.STYLE_SHARES) if case.wanted is None else case.wanted
    reply = style.answer(case, wanted, draw.integer(0, 10**9))
    if case.system is None:
        return _chat(kind, draw, case.question, reply)
    return Document(kind, (("system", case.system), ("user", case.question), ("assistant", reply)))


def _interview(draw: Draw) -> Document:
    """Several questions about one document: each binds another subject to its value, so little text teaches much."""
    memo = memos.draw_memo(draw, (2, 4) if draw.chance(0.5) else (3, 7))
    asked = draw.shuffled(memo.facts)[:6]
    messages: list[tuple[str, str]] = []
    for place, known in enumerate(asked):
        question = known.question(draw.integer(0, 5))
        messages.append(("user", question if place else style_text.with_document(draw, memo.text, question)))
        messages.append(
            (
                "assistant",
                style_text.fact(
                    draw, known, draw.weighted(_INTERVIEW_STYLES if place else style.STYLE_SHARES)
                ),
            )
        )
    if draw.chance(0.3):
        messages.append(("user", memo.missing.question(draw.integer(0, 5))))
        messages.append(
            ("assistant", style_text.refusal(draw, draw.weighted(_INTERVIEW_STYLES), memo.missing.subject))
        )
    return Document("interview", tuple(messages))


def _table(number: int, rows: tuple[int, int]) -> tuple[str, str]:
    case = spreadsheet.case_at(CORPUS_SEED, number, rows)
    return case.prompt, case.gold


def _item(draw: Draw) -> str:
    kind = draw.integer(0, 4)
    if kind == 0:
        return names.person(draw)
    if kind == 1:
        return f"{names.coined(draw)},{draw.choice(names.REGIONS)},{spreadsheet.draw_thousands(draw)}"
    if kind == 2:
        return f"{names.firm(draw)}, {names.code(draw)}"
    return names.coined(draw) if kind == 3 else names.town(draw)


def _list(draw: Draw) -> tuple[str, str]:
    lines = [_item(draw) for _ in range(draw.integer(2, 26))]
    if draw.chance(0.6):
        return "\n".join(
            (draw.choice(("Copy this list.", "Repeat the list.", "Write this list again.")), *lines)
        ), "\n".join(lines)
    marked = [f"- {line}" for line in lines]
    if draw.chance(0.5):
        return "\n".join(("Remove the dashes.", *marked)), "\n".join(lines)
    return "\n".join(("Put a dash before each line.", *lines)), "\n".join(marked)


def _money(draw: Draw) -> tuple[str, str]:
    amounts = [spreadsheet.draw_thousands(draw) for _ in range(draw.integer(1, 6))]
    ask = draw.choice(
        ("In thousands:", "Write in thousands.", "Convert to thousands.", "How many thousands?")
    )
    return "\n".join((ask, *(spreadsheet.messy_money(draw, amount) for amount in amounts))), "\n".join(
        map(str, amounts)
    )


def _header(draw: Draw) -> tuple[str, str]:
    words = (
        "Name",
        "Account",
        "Region",
        "Owner",
        "Net",
        "Sales",
        "Revenue",
        "Cost",
        "Total",
        "Date",
        "Client",
        "Project",
        "Price",
        "Unit",
        "Order",
        "Start",
        "End",
        "Op",
        "Ex",
        "Team",
        "Fiscal",
        "Quarter",
    )
    cells = [
        draw.choice((" ", " ", "-")).join(draw.sample(words, draw.integer(1, 3)))
        for _ in range(draw.integer(1, 6))
    ]
    if draw.chance(0.3):
        cells = [cell.upper() for cell in cells]
    ask = draw.choice(("Snake case:", "Clean this header.", "Header to snake case."))
    return f"{ask}\n{','.join(cells)}", ",".join(map(spreadsheet.clean_header, cells))


def _definition(draw: Draw) -> tuple[str, str]:
    word, meaning = draw.choice(prose.DEFINITIONS)
    article = "an" if word[0] in "aeiou" else "a"
    ask = draw.choice(("What is {a} {w}?", "Define {w}.", "What does {w} mean?", "Explain the word {w}."))
    reply = draw.choice(
        ("{A} {w} is {m}.", "{M}.", "Good question! {A} {w} is {m}. I hope that answers your question.")
    )
    slots = {"a": article, "A": article.capitalize(), "w": word, "m": meaning, "M": style_capital(meaning)}
    return ask.format(**slots), reply.format(**slots)


def style_capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _talk(draw: Draw) -> tuple[str, str]:
    ask, replies = draw.choice(prose.SMALL_TALK)
    return ask, draw.choice(replies)


def _copy(draw: Draw) -> tuple[str, str]:
    text = prose.word_salad(draw) if draw.chance(0.6) else prose.sentence(draw)
    return f"{draw.choice(('Repeat exactly:', 'Copy this:', 'Say this:'))} {text}", text


def _rewrite(draw: Draw) -> tuple[str, str]:
    case = style.case_at(CORPUS_SEED, draw.integer(0, 10**9), "fact")
    long = style.answer(case, "padded", draw.integer(0, 10**9))
    if case.fact is None:
        raise ValueError("a fact case has a fact")
    if draw.chance(0.5):
        plain = next((s for s in map(case.fact.sentence, range(3)) if s[1:] in long), case.fact.sentence())
        return f"{draw.choice(('Make this brief:', 'Shorten this:', 'Remove the filler:'))} {long}", plain
    plain = case.fact.sentence(draw.integer(0, 2))
    return (
        f"{draw.choice(('Make this polite:', 'Say this politely:'))} {plain}",
        f"Please note: {plain} Thank you.",
    )
