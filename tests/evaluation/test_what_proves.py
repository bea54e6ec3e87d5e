"""Suites as a document names them: what is proven on, and what is not."""

from __future__ import annotations

import re
from pathlib import Path

from dlm.document import new_document, parse
from dlm.evaluation import parse_condition, read_suite


def test_the_suite_of_a_new_document_is_one_that_there_is() -> None:
    """Whoever takes the marks away from a new document's `evals` and `gate` can use them."""
    text = re.sub(r"(?m)^# (?=(evals|gate):| {2,}(tables|conditions):)", "", new_document())
    document = parse(text)
    suite = read_suite(document, Path(), "tables")
    assert (len(suite.cases), suite.grader.text, suite.max_new_tokens) == (50, "spreadsheet:strict", 512)
    assert document.header.gate is not None
    assert "does not have yet" not in text
    shown = re.search(r"or lines: (.*)", text)
    assert shown
    assert parse_condition(shown[1], ("tables",)).relative
