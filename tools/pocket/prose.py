"""Plain office English that only pretraining sees: sentences from a small grammar, definitions, small talk.

It gives the tokenizer ordinary words to build on and the model ordinary sentences, so that a document in
everyday English is not foreign to it. Nothing here is graded.
"""

from __future__ import annotations

from dlm.tasks import names
from dlm.tasks.draw import Draw
from dlm.tasks.topics import TOPICS

__all__ = ["DEFINITIONS", "SMALL_TALK", "paragraph", "sentence", "topic_paragraph", "word_salad"]

_WHO = (
    "the manager", "our team", "the new colleague", "a customer", "the director", "the supplier", "everyone",
    "the board", "the accountant", "my assistant", "the engineer", "the whole office", "the night shift",
    "a visitor", "the trainer", "the driver", "nobody", "the editor", "the designer", "one of the clerks",
    "the committee", "the landlord", "her lawyer", "their partner", "the second group", "a friend of the firm",
)  # fmt: skip
_DID = (
    "read", "wrote", "signed", "lost", "found", "checked", "sent", "opened", "closed", "moved", "bought", "sold",
    "changed", "finished", "started", "forgot", "printed", "copied", "approved", "rejected", "discussed",
    "explained", "improved", "measured", "ordered", "paid for", "asked about", "complained about", "looked at",
    "worked on", "took", "kept", "returned", "repaired", "tested", "planned", "learned about", "wanted", "saw",
)  # fmt: skip
_WILL = (
    "read", "write", "sign", "find", "check", "send", "open", "close", "move", "buy", "sell", "change", "finish",
    "start", "print", "copy", "approve", "reject", "discuss", "explain", "improve", "measure", "order", "pay for",
    "ask about", "look at", "work on", "take", "keep", "return", "repair", "test", "plan", "use", "need", "make",
)  # fmt: skip
_HOW = ("long", "short", "new", "old", "large", "small", "broken", "useful", "expensive", "cheap", "simple", "strange",
        "first", "last", "green", "heavy", "quiet", "wrong", "better", "second", "missing", "important", "usual", "safe")  # fmt: skip
_WHAT = (
    "report", "letter", "contract", "invoice", "table", "plan", "list", "budget", "message", "key", "box", "phone",
    "printer", "window", "chair", "desk", "order", "answer", "question", "file", "map", "picture", "schedule",
    "machine", "cable", "parcel", "receipt", "ticket", "form", "page", "book", "door", "lamp", "server", "program",
    "meeting", "lunch", "bill", "sample", "word", "number", "name", "idea", "problem", "change", "version", "test",
)  # fmt: skip
_WHEN = (
    "today", "yesterday", "last week", "in the morning", "before lunch", "after the meeting", "on Monday",
    "on Tuesday", "on Wednesday", "on Thursday", "on Friday", "at the weekend", "at noon", "every day", "in spring",
    "in summer", "in winter", "two days ago", "at once", "very late", "this year", "for the first time", "again",
)  # fmt: skip
_WHERE = (
    "in the office", "at home", "on the train", "in the kitchen", "near the window", "by the door", "in the city",
    "on the second floor", "under the desk", "behind the house", "in the water", "at the airport", "on the street",
    "in the garden", "from the hotel", "over the phone", "without help", "with great care", "with a friend",
)  # fmt: skip
_WHY = (
    "because it was too late", "because nobody was there", "since the weather was bad", "so that all can see it",
    "although it cost more money", "when the light went out", "if there is time", "until the work is done",
    "while the others waited", "because the price is fair", "before anyone could ask", "as the rules require",
    "but it did not help", "and that was enough", "which made people happy", "or we will lose the order",
)  # fmt: skip
_FIXED = (
    "It was a good day.", "What happened next is not known.", "This should not take long.", "We are sorry about that.",
    "There are three reasons for this.", "The first is the cost.", "The second is the time it takes.", "Why not?",
    "You can do it yourself.", "I think we can do this.", "They have been here before.", "He knows what he wants.",
    "She gave him half of it.", "Both of them agreed.", "How many are left?", "Water boils when it is hot enough.",
    "The sun rises in the east.", "Most birds can fly.", "Bread is made from flour and water.", "Where did it go?",
    "Each of us has a job to do.", "Some things are better left alone.", "Nothing is free.", "Time is short.",
    "Do you have a pen?", "The quick way is not always the best.", "Let's try another way.", "It's not that simple.",
    "Children like to play outside.", "Cats sleep most of the day.", "Music makes work easier.", "We don't know yet.",
    "Their house is near the river.", "Learning takes time.", "You're right.", "I can't say.", "That's fine with me.",
)  # fmt: skip

DEFINITIONS = (
    ("invoice", "a bill for goods or services"), ("budget", "a plan for spending money"), ("audit", "a check of the books by someone from outside"),
    ("deadline", "the last day on which something can be done"), ("memo", "a short note within a firm"), ("receipt", "a paper that proves a payment"),
    ("contract", "a promise that both sides have signed"), ("draft", "a text that is not finished"), ("agenda", "a list of points for a meeting"),
    ("backup", "a second copy kept in a safe place"), ("password", "a secret word that opens an account"), ("spreadsheet", "a table of cells that can count"),
    ("forecast", "a guess about the future from data"), ("refund", "money that is given back"), ("deposit", "money paid in advance"),
    ("warehouse", "a building where goods are stored"), ("supplier", "a firm that sells to another firm"), ("customer", "a person who buys something"),
    ("salary", "the money a worker is paid each month"), ("tax", "money that is paid to the state"), ("loan", "money that must be paid back"),
    ("profit", "what is left after all costs are paid"), ("loss", "what is missing when costs are higher than sales"), ("brand", "a name that people know and trust"),
    ("survey", "a set of questions put to many people"), ("chart", "a picture of numbers"), ("header", "the first line of a table"),
    ("footnote", "a remark at the end of a page"), ("database", "an ordered store of records"), ("server", "a computer that works for other computers"),
    ("browser", "a program that shows web pages"), ("keyboard", "a board with a key for each letter"), ("printer", "a machine that puts text on paper"),
    ("bug", "a fault in a program"), ("patch", "a small change that repairs a program"), ("release", "a version that is given to users"),
    ("ticket", "a note about work to be done"), ("milestone", "a point that shows how far the work is"), ("risk", "something that may go wrong"),
    ("insurance", "a payment against bad luck"), ("lease", "a contract to use something for a time"), ("stamp", "a mark that shows a letter is paid"),
    ("archive", "a place for old papers"), ("policy", "a rule that all must follow"), ("minutes", "the written record of a meeting"),
    ("holiday", "a day on which nobody has to work"), ("bridge", "a way over a river"), ("island", "land with water on all sides"),
    ("doctor", "a person who helps sick people"), ("teacher", "a person who helps others learn"), ("kitchen", "a room where food is made"),
    ("compass", "a tool that points north"), ("clock", "a machine that shows the time"), ("library", "a place with many books"),
    ("recipe", "a plan for a meal"), ("garden", "a piece of land with plants"), ("engine", "a machine that makes things move"),
    ("language", "the words that people share"), ("map", "a picture of the land"), ("market", "a place where people buy and sell"),
)  # fmt: skip

SMALL_TALK = (
    ("Hello.", ("Hello.", "Hello. How can I help?", "Good day.", "Hello! What can I do for you today?")),
    ("Hi!", ("Hello.", "Hi. How can I help?", "Hi! What can I do for you?")),
    ("Good morning.", ("Good morning.", "Good morning. How can I help?")),
    ("Thank you.", ("You are welcome.", "Gladly.", "You are welcome. Is there anything else?")),
    ("Who are you?", ("I am a small model for office text.", "A small model for office text.")),
    ("What can you do?", ("I clean tables and answer questions about short texts.", "Clean tables, copy lists, answer questions about short texts.")),
    ("Goodbye.", ("Goodbye.", "Goodbye. Have a nice day.")),
    ("Can you help me?", ("Yes. What do you need?", "Of course. What is it about?", "Yes.")),
)  # fmt: skip

# Letters beyond English, so that the byte tokens of other scripts are not wholly untrained.
_ODD_LETTERS = "äöüßéèçñøåłžσβλπжиядהשمن中文字日本語–—“”’€£°±×→✓…😀"


def sentence(draw: Draw) -> str:
    """One made-up sentence."""
    if draw.chance(0.15):
        return draw.choice(_FIXED)
    who = draw.choice(_WHO) if draw.chance(0.8) else names.person(draw)
    thing = (
        f"{draw.choice(('the', 'a', 'our', 'his', 'every', 'this', 'your'))} "
        + (f"{draw.choice(_HOW)} " if draw.chance(0.4) else "")
        + draw.choice(_WHAT)
    )
    verb = (
        draw.choice(_DID)
        if draw.chance(0.6)
        else f"{draw.choice(('will', 'can', 'must', 'may', 'should', 'did not', 'does not', 'would'))} {draw.choice(_WILL)}"
    )
    parts = [who, verb, thing]
    if draw.chance(0.4):
        parts.append(draw.choice(_WHERE))
    if draw.chance(0.4):
        parts.append(draw.choice(_WHEN))
    if draw.chance(0.25):
        parts.append(draw.choice(_WHY))
    text = " ".join(parts)
    return text[:1].upper() + text[1:] + ("." if draw.chance(0.92) else draw.choice("!?"))


def paragraph(draw: Draw) -> str:
    """Two to eight sentences."""
    return " ".join(sentence(draw) for _ in range(draw.integer(2, 8)))


def topic_paragraph(draw: Draw) -> str:
    """Statements about how a kind of office text should be."""
    topic = draw.choice(TOPICS)
    one, two, three = draw.sample(topic.qualities, 3)
    lines = [f"Good {topic.name} are {one} and {two}.", f"{topic.name.capitalize()} should be {three}."]
    lines += [f"{rule[:1].upper()}{rule[1:]}." for rule in draw.sample(topic.rules, 2)]
    return " ".join(draw.shuffled(lines))


def word_salad(draw: Draw) -> str:
    """Words in no order, with now and then a letter of another script: material for exact copying."""
    pool = (*_HOW, *_WHAT, *_WILL, *_DID)
    words = []
    for _ in range(draw.integer(3, 14)):
        kind = draw.integer(0, 19)
        if kind == 0:
            words.append("".join(draw.choice(_ODD_LETTERS) for _ in range(draw.integer(1, 4))))
        elif kind == 1:
            words.append(names.code(draw))
        elif kind == 2:
            words.append(names.coined(draw))
        elif kind == 3:
            words.append(
                "".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(draw.integer(2, 7)))
            )
        else:
            words.append(draw.choice(pool))
    return " ".join(words)
