"""The document: `.dlm` files. `parser` reads, `writer` edits, `saving` writes, `starter` makes new ones, `sources` gathers."""

from dlm.document.header import DOCUMENT_VERSION, Header, Preference, PreferenceSettings, Training
from dlm.document.parser import check, load, parse
from dlm.document.provenance import Provenance, mined
from dlm.document.saving import create, save
from dlm.document.sections import Document, Question, Section, Triple, section_id
from dlm.document.writer import append, insert_after, remove, render_instruction, render_preference

__all__ = [
    "DOCUMENT_VERSION",
    "Document",
    "Header",
    "Preference",
    "PreferenceSettings",
    "Provenance",
    "Question",
    "Section",
    "Training",
    "Triple",
    "append",
    "check",
    "create",
    "insert_after",
    "load",
    "mined",
    "parse",
    "remove",
    "render_instruction",
    "render_preference",
    "save",
    "section_id",
]
