"""`dlm init`: a new document, a header for a file without one, or a new id for a copy."""

from __future__ import annotations

from pathlib import Path

import click

from dlm.bases import POCKET, resolve_base
from dlm.cli.options import DOCUMENT
from dlm.cli.output import Output, json_option, typed
from dlm.document import TEMPLATES, Document, adopt, create, load, new_document, renew_id, save
from dlm.errors import DlmError, UsageError

__all__ = ["init"]

DEFAULT_TEMPLATE = "starter"


@click.command(
    epilog="Templates: " + "; ".join(f"{name}: {about}" for name, about in TEMPLATES.items()) + ".",
)
@click.argument("path", type=DOCUMENT, required=False, metavar="[PATH]")
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
    metavar="FILE",
    help="Put a header in front of a file that has none; every other byte stays.",
)
@click.option(
    "--new-id",
    "renewed",
    type=DOCUMENT,
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
        raise UsageError("--template is for new documents: with a PATH")
    if base and renewed:
        raise UsageError("--base cannot change a document that exists: edit its base_model line")
    if path is not None:
        action, document = "created", _create(path, base or POCKET, template or DEFAULT_TEMPLATE)
    elif adopted is not None:
        resolve_base(base or POCKET, adopted.parent)
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
    output.line("next: edit it; it explains itself" if action == "created" else "next:")
    output.line(f"      {typed('dlm', 'check', place)}")
    output.line(f"      {typed('dlm', 'train', place)}")
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
    resolve_base(base, path.parent)  # a base that is not there: said now, not at the first training
    if path.exists():  # before folders are made; `create` looks again, without a gap
        raise UsageError(f"{path} is there already; nothing was written", next_step="name another file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DlmError(f"the folder {path.parent} cannot be made: {error.strerror}") from None
    create(path, new_document(base, template))
    return load(path)


def _renew(path: Path) -> Document:
    document = load(path)
    save(path, renew_id(document), document.sha256)
    return load(path)
