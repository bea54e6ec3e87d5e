"""`dlm gate`: may this version become current?"""

from __future__ import annotations

from pathlib import Path

import click
from click.exceptions import Exit

from dlm.cli.consent import require_consent
from dlm.cli.evaluation_view import EvaluationProgress
from dlm.cli.extras import require_training
from dlm.cli.gate_report import NOT_PASSED, gate_data, print_gate
from dlm.cli.options import device_option, document_argument
from dlm.cli.output import Output, json_option, waiting
from dlm.cli.project import find_project, warn_of_copy_at

__all__ = ["gate"]


@click.command()
@document_argument
@click.option(
    "--candidate", metavar="VERSION", help="The version to judge.  [default: the newest that answers]"
)
@click.option(
    "--baseline", metavar="VERSION",
    help="What it is compared with, such as v0001 or base.  [default: the current version; its parent where it is that]",
)  # fmt: skip
@click.option(
    "--no-eval", is_flag=True, help="Answer nothing: judge by what was evaluated before as the gate does it."
)
@click.option("--promote", "promote_it", is_flag=True, help="Make the candidate current when it passes.")
@click.option("--trust", is_flag=True, help="Run the Python grader that the document names, this time.")
@device_option
@json_option
def gate(
    output: Output,
    document: Path,
    candidate: str | None,
    baseline: str | None,
    no_eval: bool,
    promote_it: bool,
    trust: bool,
    device: str,
) -> None:
    """Ask the document's gate whether a version may become current. Exit code 3 when it has not passed.

    Both versions answer the suites that the conditions need, greedily and once a case, unless they did so before; answers
    made in another way do not count. Every condition is PASS, FAIL, UNREACHABLE (no answer could meet it) or MISSING. The
    verdict is recorded, and `dlm promote` obeys it.
    """
    if not no_eval:
        require_training("dlm gate")
    find_project(document)
    warn_of_copy_at(output, document)
    with waiting("loading the libraries …"):
        from dlm.store import Home
        from dlm.workflow import gate_round

    options = gate_round.GateOptions(
        candidate=candidate,
        baseline=baseline,
        evaluate=not no_eval,
        promote=promote_it,
        device=device,
        allow=lambda argv: require_consent(argv, document=document, home=Home.open(), trust=trust),
    )
    with EvaluationProgress(output) as view:
        judged = gate_round.gate(document, options, view)
    print_gate(output, document, judged)
    output.finish({"document": str(document), **gate_data(judged)})
    if judged.asked.result.verdict != "pass":
        raise Exit(NOT_PASSED)
