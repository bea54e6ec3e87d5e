"""`dlm prompt`: ask a version a question, or two versions the same one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.extras import require_training
from dlm.cli.options import FiniteNumber, device_option, document_argument, version_option
from dlm.cli.output import Output, clean, is_terminal, json_option, side_by_side, typed, waiting
from dlm.cli.project import warn_of_copy_at
from dlm.errors import TextError, UsageError

if TYPE_CHECKING:
    from dlm.model import Sample, Settings

__all__ = ["prompt"]


@click.command()
@document_argument
@click.argument("question", required=False)
@click.option(
    "--temp",
    type=FiniteNumber("a finite number, 0 or more", lambda value: value >= 0),
    metavar="T",
    default=0.0,
    show_default=True,
    help="Sampling temperature; 0 takes the likeliest token each time, so the answer repeats exactly.",
)
@click.option(
    "--top-p",
    type=FiniteNumber("a number above 0, at most 1", lambda value: 0 < value <= 1),
    metavar="P",
    default=1.0,
    show_default=True,
    help="Sample among the likeliest tokens that hold this share of the probability.",
)
@click.option(
    "--top-k",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    show_default=True,
    help="Sample among this many tokens; 0 = all.",
)
@click.option(
    "--repetition-penalty",
    type=FiniteNumber("a finite number above 0", lambda value: value > 0),
    metavar="F",
    default=1.0,
    show_default=True,
    help="Above 1, tokens that were used already become less likely.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    metavar="N",
    default=256,
    show_default=True,
    help="Longest answer in tokens.",
)
@click.option(
    "--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Seed of the sampling."
)
@version_option("Version to ask, such as v0001, or base for the untrained base.  [default: the current one]")
@click.option("--compare", nargs=2, metavar="A B", help="Two versions to ask side by side.")
@device_option
@json_option
def prompt(
    output: Output,
    document: Path,
    question: str | None,
    temp: float,
    top_p: float,
    top_k: int,
    repetition_penalty: float,
    max_new_tokens: int,
    seed: int,
    version: str | None,
    compare: tuple[str, str] | None,
    device: str,
) -> None:
    """Ask the trained model a question.

    Without QUESTION, or with -, the question is read from standard input. The answer is streamed to stdout.
    """
    if compare and version:
        raise UsageError("--compare and --version exclude each other", next_step="name one of them")
    asked = _read_question(output, document, question)
    require_training("dlm prompt")
    warn_of_copy_at(output, document)
    with waiting("loading the libraries …"):
        from dlm.model import Settings

    settings = Settings(
        temperature=temp,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max_new_tokens,
    )
    # Side by side needs both answers whole; one answer is shown as it comes.
    answers = [
        _ask(output, document, asked, wanted, settings, seed, device, shown=not compare)
        for wanted in compare or (version,)
    ]
    if compare:
        output.text(side_by_side(*((answer["version"], answer["text"]) for answer in answers)))
    for answer in answers:
        if answer["finish_reason"] == "length":
            output.note(
                f"{answer['version']} was cut at {max_new_tokens} tokens; --max-new-tokens gives it more room"
            )
    output.finish(
        {"document": str(document), "question": asked, "temperature": temp, "seed": seed, "answers": answers}
    )


def _read_question(output: Output, document: Path, question: str | None) -> str:
    """The question from the command line or standard input, outer white space aside.

    Raises:
        UsageError: there is no question.
        TextError: it is not UTF-8 text.
    """
    if question is None or question == "-":
        if is_terminal(sys.stdin):
            output.note("type the question; Ctrl-D on a line of its own ends it")
        raw = sys.stdin.buffer.read() if sys.stdin is not None else b""  # None: closed by the caller
        try:
            question = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise TextError(f"the question on standard input is not UTF-8: {error}") from None
    try:
        question.encode("utf-8")  # bytes of argv that are not UTF-8 arrive as lone surrogates
    except UnicodeEncodeError as error:
        raise TextError(f"the question is not UTF-8 text: {error}") from None
    if not question.strip():
        raise UsageError(
            "there is no question", next_step=f'{typed("dlm", "prompt", str(document))} "a question"'
        )
    return question.strip()


def _ask(
    output: Output,
    document: Path,
    question: str,
    wanted: str | None,
    settings: Settings,
    seed: int,
    device: str,
    *,
    shown: bool,
) -> dict[str, Any]:
    """One version's answer as `dlm/prompt/1` holds it; `shown` streams it to stdout."""
    with waiting(f"loading {wanted or 'the current version'} …"):
        from dlm.workflow.prompt import answer_stream, open_policy

        policy, picked = open_policy(document, wanted, device=device)
    if wanted is None and picked.value == "base":
        output.warn(picked.reason)
    whole: Sample | None = None
    for piece in answer_stream(policy, question, settings, seed):
        if not isinstance(piece, str):
            whole = piece
        elif shown and not output.as_json:
            click.echo(clean(piece), nl=False)
    if whole is None:
        raise RuntimeError("the answer's stream ended without its sample")
    if shown:
        output.line()
    return {
        "version": picked.value,
        "reason": picked.reason,
        "text": whole.text,
        "finish_reason": whole.finish_reason,
        "tokens": len(whole.ids),
    }
