"""What every benchmark ends with: a table on the terminal and a JSON file that says where the figures come from."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
sys.path.append(str(RESULTS.parent.parent))  # for tools/, which is not installed; import this module first
LIBRARIES = ("dlm", "numpy", "torch", "transformers", "peft", "trl")


def machine() -> dict[str, Any]:
    """Processor, cores, memory and system of this machine."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gb": round(pages / 1e9, 1),
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Python and the libraries that decide the figures."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table; a column that only some of them have stays empty in the others."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    values = [[row.get(column, "") for column in columns] for row in rows]
    cells = [[f"{one:.4g}" if isinstance(one, float) else str(one) for one in line] for line in values]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    for line in [columns, *cells]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def provenance() -> dict[str, Any]:
    """Where figures come from: the command, the time, the machine and the libraries."""
    return {
        "command": " ".join(["python", *sys.argv]),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
    }


def merge_report(name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """As `write_report`, for a benchmark that is run in parts: a row takes the place of the one with its `measure`, the
    others stay. Each row keeps when, by which command and under which load it was measured; rows of another machine or
    of other versions go.
    """
    here = provenance()
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    same = all(before.get(key) == here[key] for key in ("machine", "versions"))
    origin = {"when": here["when"], "load": round(os.getloadavg()[0], 1), "command": here["command"]}
    kept = {row["measure"]: row for row in before.get("rows", ()) if same and "when" in row}
    kept |= {row["measure"]: {**row, **origin} for row in rows}
    print_table(rows)
    RESULTS.mkdir(exist_ok=True)
    record = {"machine": here["machine"], "versions": here["versions"], "rows": list(kept.values())}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(
        f"written to {path.relative_to(RESULTS.parent.parent)}, {len(kept) - len(rows)} rows of other runs kept"
    )
    return path


def write_report(name: str, rows: Sequence[Mapping[str, Any]], **facts: Any) -> Path:
    """Print rows as a table and write them to `bench/results/NAME.json`."""
    print_table(rows)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {**provenance(), **facts, "rows": list(rows)}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path.relative_to(RESULTS.parent.parent)}")
    return path
