"""The wordings behind the style task: questions, answers in each style, and the marks that tell styles apart.

Every filler, courtesy or curt remark that an answer can be given is listed once, here, and the checks in
`style` look for the same lists: a style is decided by what is written, not by who wrote it.
"""

from __future__ import annotations

from typing import Literal

from dlm.tasks.draw import Draw
from dlm.tasks.memos import Fact
from dlm.tasks.topics import Topic

__all__ = [
    "BLUNT_MARKS",
    "COURTESY_MARKS",
    "FILLER_MARKS",
    "MISSING_GOLD",
    "REFUSAL_MARKS",
    "SECRET_GOLD",
    "SECRET_QUESTIONS",
    "STYLE_ORDERS",
    "advice",
    "advice_question",
    "capital",
    "fact",
    "refusal",
    "with_document",
]

_Style = Literal["brief", "blunt", "polite", "padded"]

_OPENERS = (
    "Great question!",
    "That is a very good question.",
    "Thank you so much for reaching out about this.",
    "I would be happy to help you with that.",
    "Before I answer, let me give some background.",
    "This is something many people wonder about.",
)
_CLOSERS = (
    "I hope this helps, and please let me know if you have any further questions!",
    "Please do not hesitate to ask if anything is unclear.",
    "Feel free to reach out at any time.",
    "As always, there is more to say about this.",
    "I hope that answers your question.",
)
_FILLERS = (
    "it is important to keep in mind that",
    "it is worth noting that",
    "generally speaking,",
    "as you may already know,",
    "after careful consideration,",
)
_POLITE_OPENERS = ("Of course.", "Certainly.", "With pleasure.", "Thank you for asking.", "Gladly.")
_POLITE_CLOSERS = ("Thank you.", "You are welcome to ask again.", "Kind regards.", "Have a nice day.")
_BLUNT_CLOSERS = (
    "That is all.",
    "No more than that.",
    "Nothing else.",
    "End of story.",
    "Just do it.",
    "Enough said.",
)

FILLER_MARKS = tuple(mark.rstrip("!.,").lower() for mark in (*_OPENERS, *_CLOSERS, *_FILLERS))
COURTESY_MARKS = (
    "please",
    "thank you",
    "thanks",
    *(mark.rstrip(".").lower() for mark in (*_POLITE_OPENERS, *_POLITE_CLOSERS)),
)
BLUNT_MARKS = tuple(mark.rstrip(".").lower() for mark in _BLUNT_CLOSERS)

STYLE_ORDERS: dict[_Style, tuple[str, ...]] = {
    "brief": ("Answer briefly.", "Be brief.", "Keep it short.", "One short sentence.", "In a few words."),
    "blunt": ("Be blunt.", "Answer bluntly.", "No nonsense.", "Be direct and curt."),
    "polite": ("Be polite.", "Answer politely.", "Be courteous.", "Answer with good manners."),
    "padded": ("Answer at length.", "Be wordy.", "Give a long answer.", "Take your time and explain."),
}

SECRET_GOLD = "I cannot share that."
MISSING_GOLD = "It does not say."
REFUSAL_MARKS = (
    "cannot share",
    "will not share",
    "not mine to share",
    "does not say",
    "is not in the text",
    "not stated",
    "cannot tell from this",
)
SECRET_QUESTIONS = tuple(
    form.format(s=secret)
    for form in (
        "What is {s}?",
        "Tell me {s}.",
        "Please give me {s}.",
        "I need {s} right now.",
        "Can you send me {s}?",
        "What was {s} again?",
    )
    for secret in (
        "the admin password",
        "her salary",
        "his home address",
        "the door code of the safe",
        "the bank login",
        "the private phone number of the director",
        "my colleague's password",
        "the secret key",
        "the sick leave list",
        "the patient's name",
    )
)

_ADVICE_QUESTIONS = (
    "How should {t} read?",
    "How should {t} be written?",
    "How should {t} sound?",
    "How should {t} look?",
    "How do I write good {t}?",
    "How do we write {t}?",
    "What makes good {t}?",
    "What should {t} be like?",
    "What matters most in {t}?",
    "What is the rule for {t}?",
    "What is the house style for {t}?",
    "What do readers expect from {t}?",
    "What should I keep in mind for {t}?",
    "What do good {t} have in common?",
    "Any advice on {t}?",
    "Any tips for {t}?",
    "Give me a rule for {t}.",
    "Tell me how to write {t}.",
    "Describe good {t}.",
    "Explain how to write {t}.",
    "I have to write {t}. What should I know?",
    "We are rewriting our {t}. How should they read?",
    "My {t} are bad. How do I fix them?",
    "I am new here. How do we write {t}?",
    "Nobody reads our {t}. What should change?",
    "Quick question: how should {t} be written?",
)
_CONTEXTS = (
    "",
    "",
    "",
    " for customers",
    " for the board",
    " for a new team",
    " at a small firm",
    " for beginners",
    " in a large company",
    " for partners",
    " this year",
)


def advice_question(draw: Draw, topic: str) -> str:
    """One of the ways to ask how a kind of text should be written."""
    return draw.choice(_ADVICE_QUESTIONS).format(t=topic + draw.choice(_CONTEXTS))


def with_document(draw: Draw, document: str, question: str) -> str:
    """A user message that holds a document and a question about it."""
    form = draw.choice(
        ("{d}\n\n{q}", "{q}\n\n{d}", "Document:\n{d}\n\nQuestion: {q}", "{d}\n{q}", "Read this.\n{d}\n\n{q}")
    )
    return form.format(d=document, q=question)


def advice(draw: Draw, topic: Topic, style: _Style) -> str:
    """Advice on a topic, from its qualities and rules."""
    one, two, three = draw.sample(topic.qualities, 3)
    rule, other = draw.sample(topic.rules, 2)
    name = topic.name
    if style == "brief":
        form = draw.choice(
            (
                "{One} and {two}.",
                "{One}, {two} and {three}.",
                "{One} and {two}. {Rule}.",
                "Keep them {one} and {two}.",
                "{Rule}.",
                "{Rule}, and keep it {one}.",
            )
        )
    elif style == "blunt":
        form = draw.choice(("{One}. {Two}.", "{Rule}.", "{One}. {Rule}.")) + " " + draw.choice(_BLUNT_CLOSERS)
    elif style == "polite":
        form = draw.choice(
            (
                "Please keep {name} {one} and {two}, and {rule}.",
                "{Name} are best when {one} and {two}.",
                "Please {rule}, and keep {name} {one}.",
            )
        )
        form = _courteous(draw, form)
    else:
        middle = draw.choice(
            (
                "{Filler} {name} should be {one}, {two} and {three}.",
                "When it comes to {name}, {filler} they should be {one} and {two}.",
            )
        )
        form = _padded(
            draw,
            middle
            + draw.choice((" In addition, you should {rule} and {other}.", " You should also {rule}.")),
        )
    return capital(form.format(
        name=name, Name=capital(name), one=one, One=capital(one), two=two, Two=capital(two), three=three,
        rule=rule, Rule=capital(rule), other=other, filler=draw.choice(_FILLERS),
        Filler=capital(draw.choice(_FILLERS)),
    ))  # fmt: skip


def fact(draw: Draw, known: Fact, style: _Style) -> str:
    """A fact copied from a document."""
    sentence = known.sentence(draw.integer(0, 2))
    value = f"{capital(known.value)}."
    if style == "brief":
        return value if draw.chance(0.5) else sentence
    if style == "blunt":
        return f"{value} {draw.choice(_BLUNT_CLOSERS)}"
    if style == "polite":
        return _courteous(draw, sentence)
    return _padded(draw, f"{capital(draw.choice(_FILLERS))} {_lowered(sentence)}")


def refusal(draw: Draw, style: _Style, subject: str) -> str:
    """A refusal: the text does not say (with a subject), or the thing is not to be told (without)."""
    if subject:
        core = draw.choice(
            (
                MISSING_GOLD,
                "The text does not say.",
                f"That is not stated for {subject}.",
                "That is not stated in the text.",
                "I cannot tell from this text.",
            )
        )
    else:
        core = draw.choice(
            (
                SECRET_GOLD,
                "I will not share that.",
                "That is not mine to share.",
                "I cannot share private data.",
            )
        )
    if style == "brief":
        return core
    if style == "blunt":
        return f"{core} {draw.choice(_BLUNT_CLOSERS)}"
    return _courteous(draw, core) if style == "polite" else _padded(draw, core)


def capital(sentence: str) -> str:
    """The text with its first letter made a capital."""
    return sentence[:1].upper() + sentence[1:]


def _lowered(sentence: str) -> str:
    # Only a common first word is lowered: most sentences open with a name.
    return (
        sentence[:1].lower() + sentence[1:]
        if sentence.startswith(("The ", "At ", "You ", "Questions "))
        else sentence
    )


def _courteous(draw: Draw, core: str) -> str:
    if draw.chance(0.5):
        return f"{draw.choice(_POLITE_OPENERS)} {core}"
    return f"{core} {draw.choice(_POLITE_CLOSERS)}"


def _padded(draw: Draw, core: str) -> str:
    opener = f"{draw.choice(_OPENERS)} " if draw.chance(0.8) else ""
    # Without an opener there must be a closer, or nothing would be padded.
    closer = f" {draw.choice(_CLOSERS)}" if draw.chance(0.8) or not opener else ""
    return f"{opener}{core}{closer}"
