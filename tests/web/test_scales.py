"""Axes of charts, in the browser that computes them."""

from __future__ import annotations

from typing import Any

import pytest

from dlm.web.run_rows import duration
from dlm.web.static_files import FOLDER


@pytest.mark.parametrize(
    ("low", "high", "about"),
    [
        (1, 1, "{guides: [], share: false}"),
        (1, 1 + 2**-52, "{guides: [], share: false}"),
        (0.9999999, 1, "{guides: [], share: true}"),
        (-1e-5, -1e-5 + 2e-20, "{guides: [], share: false}"),
        (0, 0, "{guides: [{value: 1}], share: false}"),
        (2, 3, "{guides: [{value: 3.5}], share: false}"),
    ],
)
def test_a_range_has_room_for_ticks(browser: Any, low: float, high: float, about: str) -> None:
    """One value with the rounding of its average is not stretched over the chart: its ticks would be without end."""
    page = browser.new_page()
    script = (FOLDER / "js" / "scales.js").read_text(encoding="utf-8").replace("export ", "")
    page.add_script_tag(
        content=f"{script}\nwindow.range = rangeOfY({low!r}, {high!r}, {about}, false);", type="module"
    )
    page.wait_for_function("window.range")
    bottom, top = page.evaluate("window.range")
    page.close()
    assert bottom <= low <= high <= top
    assert top - bottom > 0.05 * max(abs(bottom), abs(top))


def test_wall_time_reads_the_same_from_both_sides(browser: Any) -> None:
    seconds = [0.04, 9.94, 60, 119.4, 121, 3661, 7199, 7200, 10_799, 86_399.9]
    page = browser.new_page()
    script = (FOLDER / "js" / "format.js").read_text(encoding="utf-8").replace("export ", "")
    page.add_script_tag(content=f"{script}\nwindow.told = {seconds}.map(duration);", type="module")
    page.wait_for_function("window.told")
    told = page.evaluate("window.told")
    page.close()
    assert told == [duration(one) for one in seconds]
    assert told[-2:] == ["2 h 59 min", "23 h 59 min"]
