"""Short made-up office documents, and questions whose answer must be copied from them.

Each document states two to six facts; a fact is a subject, a relation and a value. Subjects and values
are drawn fresh, so the number of different questions has no practical limit, and a right answer can only
come from reading the document.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dlm.tasks import names
from dlm.tasks.draw import Draw

__all__ = ["RELATIONS", "Fact", "Memo", "Relation", "draw_memo"]

_THINGS = (
    "audit",
    "budget review",
    "harbor project",
    "billing team",
    "website",
    "warehouse move",
    "training day",
    "north office",
    "annual report",
    "hiring plan",
    "payroll system",
    "help desk",
    "sales team",
    "survey",
    "newsletter",
    "safety course",
    "data cleanup",
    "mobile app",
    "price list",
    "spring campaign",
    "lab",
    "print order",
    "board meeting",
    "customer portal",
    "archive",
    "catering contract",
    "bike scheme",
    "car park",
    "intranet",
    "pilot",
    "kitchen repair",
    "printer lease",
    "travel policy",
    "phone system",
    "summer party",
    "night shift",
    "loading dock",
    "press event",
    "app launch",
    "tax filing",
)
_REASONS = (
    "a late delivery",
    "missing parts",
    "a budget freeze",
    "bad weather",
    "a staff shortage",
    "a failed test",
    "a power cut",
    "a contract dispute",
    "a software fault",
    "new safety rules",
    "a flooded cellar",
    "low demand",
)
_STATES = (
    "on track",
    "paused",
    "behind plan",
    "finished",
    "ahead of plan",
    "under review",
    "cancelled",
    "not yet approved",
    "waiting for parts",
    "ready to start",
)
_COLORS = ("red", "blue", "green", "yellow", "grey", "orange", "purple", "white", "black", "brown")


def _amount(draw: Draw) -> str:
    if draw.chance(0.4):
        return f"${draw.integer(1, 9)}.{draw.integer(1, 9)}M"
    return f"${draw.integer(2, 99) * 5}K" if draw.chance(0.5) else f"${draw.integer(11, 999)}"


def _staff(draw: Draw) -> str:
    return str(draw.integer(2, 99))


def _room(draw: Draw) -> str:
    return f"room {draw.integer(1, 9)}{draw.integer(0, 9)}{draw.integer(0, 9)}"


def _clock(draw: Draw) -> str:
    return f"{draw.integer(7, 18)}:{draw.choice(('00', '15', '30', '45'))}"


@dataclass(frozen=True)
class Relation:
    """One kind of fact: how its value is drawn, stated, asked for, and written as a `label: value` line.

    Statements name the subject before the value: a reader that goes left to right, as a small causal model
    does, can then tie the value to its subject when it meets it.
    """

    name: str
    value: Callable[[Draw], str]
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    label: str


RELATIONS = (
    Relation("lead", names.person,
             ("{s} is led by {v}.", "The lead for {s} is {v}.", "{s} has {v} in charge."),
             ("Who leads {s}?", "Who is in charge of {s}?", "Who is the lead for {s}?", "Name the lead of {s}."), "Lead"),
    Relation("due", names.date,
             ("{s} is due on {v}.", "The deadline for {s} is {v}.", "{s} must be done by {v}."),
             ("When is {s} due?", "What is the deadline for {s}?", "By when must {s} be done?", "What date is {s} due?"), "Due"),
    Relation("budget", _amount,
             ("{s} has a budget of {v}.", "The budget for {s} is {v}.", "{s} may spend {v}."),
             ("What is the budget for {s}?", "How much money does {s} have?", "What budget does {s} have?"), "Budget"),
    Relation("staff", _staff,
             ("{s} has {v} people.", "{s} employs {v} people.", "The headcount for {s} is {v}."),
             ("How many people work on {s}?", "What is the headcount for {s}?", "How many people does {s} have?"), "Headcount"),
    Relation("room", _room,
             ("{s} is in {v}.", "You will find {s} in {v}.", "{s} uses {v}."),
             ("Which room does {s} use?", "What room is {s} in?", "In which room is {s}?"), "Room"),
    Relation("supplier", names.firm,
             ("{s} is supplied by {v}.", "The supplier for {s} is {v}.", "{s} buys from {v}."),
             ("Who supplies {s}?", "Who is the supplier for {s}?", "Which firm supplies {s}?"), "Supplier"),
    Relation("place", names.town,
             ("{s} is based in {v}.", "{s} is hosted by {v}.", "The site for {s} is {v}."),
             ("Where is {s} based?", "Which town hosts {s}?", "What is the site for {s}?"), "Site"),
    Relation("code", names.code,
             ("The code for {s} is {v}.", "{s} has the code {v}.", "{s} runs under code {v}."),
             ("What is the code for {s}?", "Which code does {s} have?", "What code should I use for {s}?"), "Code"),
    Relation("reason", lambda draw: draw.choice(_REASONS),
             ("{s} is delayed because of {v}.", "The reason {s} is late is {v}.", "{s} is held up by {v}."),
             ("Why is {s} late?", "Why is {s} delayed?", "What has held up {s}?"), "Delay"),
    Relation("status", lambda draw: draw.choice(_STATES),
             ("{s} is {v}.", "The status of {s} is {v}.", "At the moment {s} is {v}."),
             ("What is the status of {s}?", "How is {s} going?", "What state is {s} in?"), "Status"),
    Relation("time", _clock,
             ("{s} starts at {v}.", "The start time for {s} is {v}.", "{s} begins at {v}."),
             ("What time does {s} start?", "When does {s} start?", "What is the start time for {s}?"), "Start"),
    Relation("contact", names.person,
             ("The contact for {s} is {v}.", "Questions about {s} go to {v}.", "{s} has {v} as contact."),
             ("Who is the contact for {s}?", "Whom do I ask about {s}?", "Who answers questions about {s}?"), "Contact"),
    Relation("color", lambda draw: draw.choice(_COLORS),
             ("The folder for {s} is {v}.", "{s} has the {v} folder.", "{s} is filed in the {v} folder."),
             ("Which folder is for {s}?", "What color is the folder for {s}?", "Which folder does {s} have?"), "Folder"),
)  # fmt: skip
_BY_NAME = {relation.name: relation for relation in RELATIONS}

_TITLES = (
    "Memo",
    "Weekly update",
    "Notes",
    "Status",
    "Office notes",
    "Project notes",
    "Minutes",
    "Summary",
    "Update for all staff",
)
_ASIDES = (
    "Please read this before the meeting.", "More details will follow next week.", "Thank you all for your work.",
    "The next update is on Friday.", "Ask the office if anything is unclear.", "Nothing else has changed.",
    "Coffee is in the kitchen.", "This replaces the last version.", "Please keep this file up to date.",
    "Let us know about mistakes.", "All other dates stay the same.",
)  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """`subject` (such as `the audit`) stands in `relation` (a name in `RELATIONS`) to `value`."""

    subject: str
    relation: str
    value: str

    def sentence(self, variant: int = 0) -> str:
        """The fact as a sentence; variants cycle through the relation's wordings."""
        forms = _BY_NAME[self.relation].statements
        return _capital(forms[variant % len(forms)].format(s=self.subject, v=self.value))

    def question(self, variant: int = 0) -> str:
        """A question that asks for the value."""
        forms = _BY_NAME[self.relation].questions
        return forms[variant % len(forms)].format(s=self.subject)

    def line(self) -> str:
        """The fact as `subject – label: value`, for list-shaped documents."""
        return f"{_capital(self.subject)}, {_BY_NAME[self.relation].label.lower()}: {self.value}"


@dataclass(frozen=True)
class Memo:
    """A document's text, the facts it states, and one (subject, relation) that it does not state."""

    text: str
    facts: tuple[Fact, ...]
    missing: Fact

    def rivals(self, fact: Fact) -> tuple[str, ...]:
        """Values of the other facts: an answer that names one of them mixes facts up."""
        return tuple(
            sorted({other.value for other in self.facts if other is not fact and other.value != fact.value})
        )


def draw_memo(draw: Draw, facts: tuple[int, int] = (2, 6)) -> Memo:
    """A fresh document with `facts[0]` to `facts[1]` facts."""
    subjects = [_subject(draw) for _ in range(draw.integer(2, 4))]
    relations = draw.sample(RELATIONS, draw.integer(2, 4))
    grid = draw.shuffled(
        [(subject, relation) for subject in dict.fromkeys(subjects) for relation in relations]
    )
    # At least one cell of the grid stays out of the document, to be asked for in vain.
    count = min(draw.integer(*facts), len(grid) - 1)
    stated = tuple(Fact(subject, relation.name, relation.value(draw)) for subject, relation in grid[:count])
    subject, relation = grid[count]
    return Memo(_layout(draw, stated), stated, Fact(subject, relation.name, relation.value(draw)))


def _subject(draw: Draw) -> str:
    kind = draw.integer(0, 9)
    if kind < 5:
        return f"the {draw.choice(_THINGS)}"
    if kind < 8:
        return f"Project {names.coined(draw)}"
    return f"the {names.coined(draw)} {draw.choice(('team', 'project', 'office', 'order', 'report'))}"


def _layout(draw: Draw, facts: tuple[Fact, ...]) -> str:
    title = draw.choice(_TITLES)
    if draw.chance(0.3):
        return "\n".join((f"{title}:", *(f"- {fact.line()}" for fact in facts)))
    sentences = [fact.sentence(draw.integer(0, 2)) for fact in facts]
    if draw.chance(0.4):
        sentences.insert(draw.integer(0, len(sentences)), draw.choice(_ASIDES))
    if draw.chance(0.3):
        return "\n".join((f"{title}:", *(f"- {sentence}" for sentence in sentences)))
    body = " ".join(sentences)
    return f"{title}: {body}" if draw.chance(0.7) else body


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
