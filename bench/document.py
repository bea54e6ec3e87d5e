"""How long a document of 1 MB takes: `dlm check` as a whole process, and its parts within one.

Three bodies of the same size: questions and answers, prose, and answers with code blocks and escapes. The target is
0.5 s for the whole process. Where other work shares the cores (`load_average`), wall time includes the wait for
them; processor time does not.

    python bench/document.py
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pydantic
import yaml
from report import write_report

from dlm.document import append, load, new_document, parse, remove, render_preference, save

BYTES = 1_000_000
RUNS = 9
TARGET_S = 0.5


def bodies() -> dict[str, str]:
    """Documents of at least BYTES bytes."""
    header = new_document("pocket", "qa").split("\n---\n")[0] + "\n---\n"
    pieces = {
        "questions": "### Q\nWhat does line {0} say?\n### A\nIt says that it has the number {0}, and no more.\n\n",
        "prose": "Line {0} of a text that is read as it stands, with nothing in it that means anything.\n",
        "code": "### Q\nHow is {0} printed?\n### A\nLike this, in one line:\n\n```python\n# a comment\nprint({0})\n```\n\n\\::prose:: is text here.\n\n",
    }
    made = {}
    for name, piece in pieces.items():
        count = BYTES // len(piece.format(10_000)) + 2_000
        body = "".join(piece.format(number) for number in range(count))
        made[name] = header + ("" if name == "prose" else "::instruction::\n") + body
    return made


def seconds(action: Callable[[], object]) -> float:
    """The median time of an action over RUNS runs."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return median(times)


def process_seconds(command: list[str]) -> tuple[float, float, float]:
    """Median and least wall time and median processor time of a command over RUNS runs."""
    wall, processor = [], []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        wall.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return median(wall), min(wall), median(processor)


def measure(name: str, text: str, path: Path) -> dict[str, Any]:
    """One row of the report: median seconds for one body."""
    path.write_text(text, encoding="utf-8")
    document = load(path)
    block = render_preference([("p", "c", "r")])
    edited = parse(append(document, block))
    wall, least, processor = process_seconds([sys.executable, "-m", "dlm", "check", str(path)])
    return {
        "body": name,
        "bytes": path.stat().st_size,
        "check_wall_s": wall,
        "check_least_wall_s": least,
        "check_cpu_s": processor,
        "parse_s": seconds(lambda: parse(text)),
        "append_s": seconds(lambda: append(document, block)),
        "remove_s": seconds(lambda: remove(edited, edited.sections[-1])),
        "save_s": seconds(lambda: save(path, text, document.sha256)),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(name, text, Path(folder) / f"{name}.dlm") for name, text in bodies().items()]
    libraries = {"pydantic": pydantic.VERSION, "pyyaml": yaml.__version__, "libyaml": yaml.__with_libyaml__}
    write_report(
        "document", rows, runs=RUNS, target_s=TARGET_S, libraries=libraries, load_average=os.getloadavg()[0]
    )


if __name__ == "__main__":
    main()
