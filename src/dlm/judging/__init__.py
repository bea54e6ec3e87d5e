"""Judges: each gives a finite score to an answer to a question, or says why it could not. No torch until one needs it."""

from dlm.judging.judge import (
    DEFAULT_TIMEOUT_S,
    FAILURES,
    Anchor,
    Failure,
    Item,
    Judge,
    JudgeContext,
    JudgeKind,
    JudgeSpec,
    Verdict,
    check_judge,
    make_judge,
    parse_judge,
)

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "FAILURES",
    "Anchor",
    "Failure",
    "Item",
    "Judge",
    "JudgeContext",
    "JudgeKind",
    "JudgeSpec",
    "Verdict",
    "check_judge",
    "make_judge",
    "parse_judge",
]
