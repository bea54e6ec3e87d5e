"""Write the tables of `docs/curves.md` from the rules themselves, so that the page cannot say what they do not do.

python tools/docs/curve_rules.py            writes the tables between the page's marks
python tools/docs/curve_rules.py --check    exit code 1 when the page is not current
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from dlm.curves import RULES, Rule, Thresholds

PAGE = Path(__file__).parents[2] / "docs" / "curves.md"
MEASURED = Path(__file__).parents[2] / "bench" / "results" / "diagnosis.json"
ALL_KINDS = 5


def rules_table() -> str:
    """One row a rule: what it says when, what that tells, for which runs, which thresholds it reads."""
    rows = ["| rule | fires when | which tells of | runs | thresholds |", "|---|---|---|---|---|"]
    for rule in RULES:
        limits = ", ".join(f"`{name}`" for name in rule.thresholds) or "–"
        end = " (at the end)" if rule.at_end else ""
        rows.append(f"| `{rule.name}` | {rule.says}{end} | {rule.means} | {kinds_of(rule)} | {limits} |")
    return "\n".join(rows)


def kinds_of(rule: Rule) -> str:
    """Kinds in words; unknown goes with SFT."""
    return (
        "all" if len(rule.kinds) == ALL_KINDS else ", ".join(kind for kind in rule.kinds if kind != "unknown")
    )


def thresholds_table() -> str:
    """One row a threshold: its default and what it is."""
    rows = ["| threshold | default | is |", "|---|---|---|"]
    for name, field in Thresholds.model_fields.items():
        rows.append(f"| `{name}` | {field.default:g} | {field.description} |")
    return "\n".join(rows)


def accuracy_table() -> str:
    """One row a rule that noise can mislead: what `bench/diagnosis.py` measured."""
    rows = [
        "| rule | recall | undecided | false alarms | worst pattern | area under ROC |",
        "|---|---|---|---|---|---|",
    ]
    for row in json.loads(MEASURED.read_text(encoding="utf-8"))["rows"]:
        area = row["roc_area"] if isinstance(row["roc_area"], str) else f"{row['roc_area']:.3f}"
        figures = f"{row['recall']:.3f} | {row['undecided']:.3f} | {row['false_alarm']:.4f}"
        rows.append(f"| `{row['rule']}` | {figures} | {row['worst']} | {area} |")
    return "\n".join(rows)


def current(page: str) -> str:
    """The page with its tables as the code has them."""
    tables = (("rules", rules_table()), ("thresholds", thresholds_table()), ("accuracy", accuracy_table()))
    for mark, table in tables:
        between = re.compile(rf"(<!-- {mark}[^\n]*-->\n).*?(\n<!-- end -->)", re.DOTALL)
        page = between.sub(lambda found, table=table: f"{found[1]}\n{table}\n{found[2]}", page)  # type: ignore[misc]
    return page


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only say whether the page is current")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    made = current(page)
    if arguments.check:
        if made != page:
            sys.exit(f"{PAGE.name} is not current: python tools/docs/curve_rules.py")
        return
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
