"""Where what fails is decided, and which instrument to try, as people and `--json` see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dlm.cli.output import Output
from dlm.cli.project import open_store

__all__ = ["print_advice"]

_DECIDED = {
    "nowhere": "by no model: budget, references or grader",
    "tokens": "token by token",
    "sequence": "between whole answers",
    "generation": "while the answer is generated",
}


def print_advice(
    output: Output, document: Path, versions: Sequence[str], suites: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Show the advice on what the evaluations of versions have recorded; returns it for `--json`. `suites`: of these alone.

    Raises:
        DlmError: the document or its store cannot be read.
    """
    from dlm.document import load
    from dlm.workflow.instruments import advise_on_evaluations

    loaded, data = load(document), []
    with open_store(output, document) as store:
        for version in versions:
            known = None if version == "base" else version
            found = advise_on_evaluations(store, loaded, document, known, tuple(dict.fromkeys(suites)))
            output.heading(f"{version}: " + ("where what fails is decided" if found else "nothing fails"))
            for advice in found:
                output.line(
                    f"{advice.suite}.{advice.dimension}  {advice.value:.4f}, the references {advice.ceiling:.4f}"
                )
                tool = f"; try {advice.instrument}" if advice.instrument else "; nothing to train"
                output.pairs(
                    {
                        "decided": f"{_DECIDED[advice.decided]}{tool}",
                        "evidence": "\n".join(advice.evidence),
                        "next": advice.next_step,
                    }
                )
                data.append({"version": version, **asdict(advice), "evidence": list(advice.evidence)})
            output.line()
    return data
