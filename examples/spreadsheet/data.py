"""Write what the arms of the study train on, as JSON lines beside this file: the same bytes each time.

python data.py FOLDER [ROWS]

tables.jsonl     240 prompts with complete tables of 8 to 12 rows (split train)
stress.jsonl     240 prompts with complete tables of 40 rows, or of ROWS (split stress_train)
collapsed.jsonl  12 of tables.jsonl, for the recipe that collapsed in the published study
pairs.jsonl      240 pairs on the prompts of stress.jsonl: the complete table against one that lost 30 to 70 % of its rows
prompts.jsonl    the prompts of stress.jsonl with their references and facts, for the rft phase
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dlm.grading.tables import facts_of
from dlm.tasks import spreadsheet


def write_all(folder: Path, rows_of_stress: int | None = None) -> list[Path]:
    """Write the files; returns their paths. `rows_of_stress` None: the split's own."""
    tables, stress = spreadsheet.of_split("train"), spreadsheet.of_split("stress_train", rows=rows_of_stress)
    rows: dict[str, list[dict[str, Any]]] = {
        "tables": [{"prompt": case.prompt, "completion": case.gold} for case in tables],
        "stress": [{"prompt": case.prompt, "completion": case.gold} for case in stress],
        "collapsed": [{"prompt": case.prompt, "completion": case.gold} for case in tables[:12]],
        "pairs": [
            {"prompt": case.prompt, "chosen": case.gold, "rejected": spreadsheet.drop_rows(case)}
            for case in stress
        ],
        "prompts": [
            {"prompt": case.prompt, "reference": case.gold, "facts": facts_of(case)} for case in stress
        ],
    }
    return [_write(folder / f"{name}.jsonl", lines) for name, lines in rows.items()]


def _write(path: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    new = path.with_suffix(".new")  # somebody may be reading what stands there
    new.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return new.rename(path)


if __name__ == "__main__":
    folder, *rows = sys.argv[1:] or ["."]
    for written in write_all(Path(folder), *map(int, rows)):
        print(written)
