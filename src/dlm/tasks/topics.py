"""Topics of office writing, each with what is held to be good about it: the closed list behind advice questions.

`qualities` fit "they should be …"; `rules` are imperatives. A topic's own qualities and rules are what an
answer about it may be checked against.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TOPICS", "Topic"]


@dataclass(frozen=True)
class Topic:
    """One kind of office text: its plural name, what it should be, what its writer should do."""

    name: str
    qualities: tuple[str, ...]
    rules: tuple[str, ...]


def _topic(name: str, qualities: str, rules: str) -> Topic:
    return Topic(name, tuple(qualities.split(", ")), tuple(rules.split("; ")))


TOPICS = (
    _topic(
        "release notes",
        "brief, dated, factual, calm",
        "say what changed; name who is affected; link the ticket",
    ),
    _topic(
        "status updates",
        "regular, honest, brief, clear",
        "lead with the risk; give the date; say what is next",
    ),
    _topic(
        "commit messages",
        "specific, brief, imperative, plain",
        "say why it changed; name the module; keep one topic",
    ),
    _topic(
        "incident reports",
        "factual, blameless, complete, dated",
        "list the timeline; name the cause; say how to prevent it",
    ),
    _topic(
        "meeting minutes",
        "brief, neutral, dated, complete",
        "list the decisions; name the owners; send them the same day",
    ),
    _topic(
        "error messages", "specific, plain, calm, helpful", "say what failed; say how to fix it; avoid jargon"
    ),
    _topic(
        "invoices", "exact, dated, numbered, complete", "state the amount; add the tax; give the bank details"
    ),
    _topic("job ads", "honest, clear, inviting, concrete", "state the pay; list the tasks; say how to apply"),
    _topic(
        "onboarding guides",
        "friendly, ordered, complete, current",
        "start with access; name a contact; plan the first week",
    ),
    _topic(
        "project plans",
        "realistic, ordered, clear, current",
        "list the milestones; name the owners; leave some slack",
    ),
    _topic(
        "budget requests",
        "exact, honest, justified, brief",
        "state the sum; explain the need; show the saving",
    ),
    _topic(
        "customer replies",
        "polite, prompt, clear, helpful",
        "thank the customer; answer the question; offer a next step",
    ),
    _topic(
        "apology letters",
        "sincere, brief, prompt, concrete",
        "admit the mistake; say what you will do; avoid excuses",
    ),
    _topic(
        "press releases",
        "newsworthy, factual, quotable, brief",
        "lead with the news; add one quote; give a press contact",
    ),
    _topic(
        "newsletters",
        "lively, brief, useful, regular",
        "lead with one story; use short sections; end with a link",
    ),
    _topic(
        "test plans",
        "complete, ordered, repeatable, exact",
        "list the cases; name the expected result; note the setup",
    ),
    _topic(
        "bug reports",
        "exact, repeatable, brief, neutral",
        "give the steps; state the version; attach the log",
    ),
    _topic(
        "user guides",
        "simple, ordered, visual, current",
        "show each step; use the words on the screen; test it on a beginner",
    ),
    _topic(
        "survey questions",
        "neutral, short, single, clear",
        "ask one thing at a time; avoid leading words; offer a way out",
    ),
    _topic(
        "sales offers", "clear, honest, specific, dated", "name the price; state the limits; say when it ends"
    ),
    _topic(
        "contracts", "exact, complete, plain, dated", "define the terms; state the duties; say how it ends"
    ),
    _topic(
        "safety notices", "visible, urgent, plain, short", "name the danger; say what to do; use a symbol"
    ),
    _topic(
        "travel reports",
        "brief, itemized, honest, prompt",
        "list the costs; keep the receipts; say what came of it",
    ),
    _topic(
        "design proposals",
        "focused, visual, honest, open",
        "state the problem; compare two options; ask for feedback",
    ),
    _topic(
        "code comments", "true, short, useful, current", "give the reason; skip the obvious; delete old ones"
    ),
    _topic(
        "slide decks",
        "sparse, visual, ordered, legible",
        "put one idea on a slide; use large type; end with the ask",
    ),
    _topic(
        "training notes",
        "practical, simple, ordered, tested",
        "give an example; add an exercise; repeat the main point",
    ),
    _topic(
        "reminders",
        "friendly, short, timely, specific",
        "name the deadline; say what is missing; make it easy to reply",
    ),
    _topic(
        "feedback notes",
        "kind, specific, balanced, prompt",
        "describe what you saw; suggest one change; do it in private",
    ),
    _topic(
        "reference letters",
        "truthful, specific, warm, signed",
        "say how you know the person; give an example; offer a phone call",
    ),
    _topic(
        "change logs",
        "ordered, dated, complete, plain",
        "put the newest first; group by kind; mark what breaks",
    ),
    _topic(
        "checklists",
        "short, ordered, testable, visible",
        "start each line with a verb; keep to one page; review them each year",
    ),
    _topic(
        "weekly reports",
        "regular, brief, measured, honest",
        "compare with the plan; show one chart; flag the blockers",
    ),
    _topic(
        "support tickets",
        "specific, complete, calm, searchable",
        "state the goal; add a screenshot; set the priority",
    ),
    _topic(
        "privacy notices",
        "plain, complete, honest, findable",
        "say what is stored; say for how long; name the contact",
    ),
    _topic(
        "price lists", "exact, sorted, current, dated", "show the unit; include the tax; mark what is new"
    ),
)
