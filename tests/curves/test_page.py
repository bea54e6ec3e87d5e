"""The page on curves has rules and thresholds as the code has them, and figures as they were measured."""

from __future__ import annotations

from tools.docs.curve_rules import PAGE, current


def test_the_tables_are_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert current(page) == page
    assert page.count("<!-- end -->") == 3
