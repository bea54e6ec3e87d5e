"""New documents: from a template, from a file that has no header yet, or as a copy with an id of its own."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Final

from dlm.document.header import DOCUMENT_VERSION
from dlm.document.header_reader import id_span
from dlm.document.parser import check_headerless, load, parse, read_bytes
from dlm.document.saving import save
from dlm.document.sections import Document
from dlm.document.ulid import new_ulid
from dlm.errors import UsageError
from dlm.recipe import nearest

__all__ = ["TEMPLATES", "adopt", "new_document", "renew_id"]

TEMPLATES: Final[dict[str, str]] = {
    "starter": "teaches the format: prose, questions, a probe, a preference; every header key explained",
    "qa": "questions and answers only",
    "preference": "questions, and pairs of a better and a worse answer",
    "release-notes": "the example of the demo: how release notes should read",
}
"""The templates of `dlm init --template` with what each is for."""

_ID: Final = "00000000000000000000000000"
_BASE_LINE: Final = "base_model: pocket"
_BOM: Final = b"\xef\xbb\xbf"


def new_document(base: str = "pocket", template: str = "starter", *, dlm_id: str | None = None) -> str:
    """The text of a new document on `base`, with a fresh id unless one is given.

    Raises:
        UsageError: an unknown template, or a base that is no name.
    """
    if template not in TEMPLATES:
        near = nearest(template, tuple(TEMPLATES))
        raise UsageError(
            f"there is no template {template!r}",
            expected=f"one of {', '.join(TEMPLATES)}",
            next_step=f"dlm init --template {near or 'starter'} FILE",
        )
    text = resources.files("dlm.document").joinpath(f"templates/{template}.dlm").read_text(encoding="utf-8")
    text = text.replace(_ID, dlm_id or new_ulid(), 1).replace(
        _BASE_LINE, f"base_model: {_yaml_text(base)}", 1
    )
    return parse(text).text


def adopt(path: str | Path, base: str = "pocket") -> Document:
    """Put a header in front of the file at `path`, leaving every other byte as it is; the document it became.

    Raises:
        UsageError: the file is not there, or has a header already.
        DocumentError: the file's text has problems, at their lines in the file as it is; nothing was written.
        ConflictError: the file changed meanwhile; nothing was written.
    """
    path = Path(path)
    data = read_bytes(path)
    sha256, newline = check_headerless(data, path)
    lines = [
        "---",
        f"dlm_id: {new_ulid()}",
        f"dlm_version: {DOCUMENT_VERSION}",
        f"base_model: {_yaml_text(base)}",
        "---",
        "",
    ]
    mark = _BOM if data.startswith(_BOM) else b""
    adopted = mark + newline.join(lines).encode() + data[len(mark) :]
    parse(adopted, path)  # a base that cannot stand in a header fails here, before anything is written
    save(path, adopted, sha256)
    return load(path)


def renew_id(document: Document) -> str:
    """The document's text with a fresh id, for a copy that is to have a store of its own; nothing else changes."""
    start = document.text.index("\n") + 1
    span = id_span(document.text[start : document.body_start])
    if span is None:  # ids always stand in the header of a document; a merged (`<<`) one stands elsewhere
        raise UsageError("the header has no line `dlm_id: ...` to renew")
    return document.text[: start + span[0]] + new_ulid() + document.text[start + span[1] :]


def _yaml_text(text: str) -> str:
    """A value for one header line: plain where that is safe, quoted (JSON is YAML) elsewhere."""
    if not text.strip():
        raise UsageError("the base has no name", next_step="dlm init --base pocket FILE")
    plain = re.fullmatch(r"[A-Za-z0-9./~][A-Za-z0-9._/~+-]*(?::[A-Za-z0-9._/~+-]+)*", text)
    return text if plain and text.lower() not in ("null", "~") else json.dumps(text, ensure_ascii=False)
