"""`dlm init`: a new document, a header for a file without one, or a new id for a copy."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import click

from dlm.bases import POCKET, resolve_base
from dlm.cli.options import DOCUMENT, remember
from dlm.cli.output import Output, json_option, typed
from dlm.document import TEMPLATES, Document, adopt, create, load, new_document, renew_id, save
from dlm.errors import BaseModelError, DlmError, UsageError

__all__ = ["init"]

DEFAULT_TEMPLATE = "starter"


@click.command(
    epilog="Templates: " + "; ".join(f"{name}: {about}" for name, about in TEMPLATES.items()) + ".",
)
@click.argument("path", type=DOCUMENT, required=False, metavar="[PATH]", callback=remember)
@click.option(
    "--base",
    metavar="NAME",
    help=f"The pretrained model to start from: a short name, hf:org/name, or ./folder.  [default: {POCKET}]",
)
@click.option(
    "--template",
    type=click.Choice(list(TEMPLATES)),
    help=f"What the new document holds.  [default: {DEFAULT_TEMPLATE}]",
)
@click.option(
    "--adopt",
    "adopted",
    type=DOCUMENT,
    callback=remember,
    metavar="FILE",
    help="Put a header in front of a file that has none; every other byte stays.",
)
@click.option(
    "--new-id",
    "renewed",
    type=DOCUMENT,
    callback=remember,
    metavar="FILE",
    help="Give a copied document an id of its own, and so a store of its own.",
)
@json_option
def init(
    output: Output,
    path: Path | None,
    base: str | None,
    template: str | None,
    adopted: Path | None,
    renewed: Path | None,
) -> None:
    """Write a new document that teaches the format. A file that is there already is never overwritten."""
    if sum(place is not None for place in (path, adopted, renewed)) != 1:
        raise UsageError(
            "name one of PATH, --adopt FILE and --new-id FILE", next_step=typed("dlm", "init", "notes.dlm")
        )
    if template and not path:
        raise UsageError(
            "--template is for new documents",
            next_step=typed("dlm", "init", "notes.dlm", "--template", template),
        )
    if base and renewed:
        raise UsageError(
            "--base cannot change a document that exists",
            next_step=f"write base_model: {base} into its header",
        )
    if path is not None:
        action, document = "created", _create(path, base or POCKET, template or DEFAULT_TEMPLATE)
    elif adopted is not None:
        _require_base(base or POCKET, adopted.parent)
        action, document = "adopted", adopt(adopted, base or POCKET)
    else:
        action, document = "renewed", _renew(renewed or Path())
    place = str(document.path)
    header = document.header
    what = {
        "created": f"wrote {place} on the base {header.base_model}",
        "adopted": f"{place} has a header now, on the base {header.base_model}",
        "renewed": f"{place} has the id {header.dlm_id} now, and a store of its own",
    }
    output.line(what[action])
    output.line()
    steps = [typed("dlm", "check", place), typed("dlm", "train", place)]
    if action == "created":
        explains = "; it explains itself" if (template or DEFAULT_TEMPLATE) == DEFAULT_TEMPLATE else ""
        steps.insert(0, f"edit it{explains}")
    for label, step in zip_longest(["next:"], steps, fillvalue=""):
        output.line(f"{label:5} {step}")
    output.finish(
        {
            "action": action,
            "document": place,
            "dlm_id": header.dlm_id,
            "base": header.base_model,
            "template": (template or DEFAULT_TEMPLATE) if action == "created" else None,
        }
    )


def _create(path: Path, base: str, template: str) -> Document:
    _require_base(base, path.parent)
    if path.exists():  # before folders are made; `create` looks again, without a gap
        raise UsageError(f"{path} is there already; nothing was written", next_step="name another file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DlmError(f"the folder {path.parent} cannot be made: {error.strerror}") from None
    create(path, new_document(base, template))
    return load(path)


def _require_base(base: str, folder: Path) -> None:
    """A base that is not there is said now, not at the first training.

    Raises:
        UsageError: --base names none.
    """
    try:
        resolve_base(base, folder)
    except BaseModelError as error:
        raise UsageError(
            error.message,
            expected=error.expected,
            found=error.found,
            next_step=error.next_step.replace("write base_model: ", "--base "),
        ) from None


def _renew(path: Path) -> Document:
    document = load(path)
    save(path, renew_id(document), document.sha256)
    return load(path)
