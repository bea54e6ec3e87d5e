"""The document: `.dlm` files. `parser` reads, `writer` edits, `saving` writes, `starter` makes new ones, `sources` gathers."""

from dlm.document.header import (
    DOCUMENT_VERSION,
    Header,
    Preference,
    PreferenceSettings,
    Reward,
    Rft,
    Training,
)
from dlm.document.parser import check, load, parse
from dlm.document.provenance import Provenance, mined
from dlm.document.saving import create, save
from dlm.document.sections import Document, Question, Section, Triple, section_id
from dlm.document.sources import GatheredSources, gather_sources
from dlm.document.starter import TEMPLATES, adopt, new_document, renew_id
from dlm.document.ulid import is_ulid, new_ulid
from dlm.document.writer import append, insert_after, remove, render_instruction, render_preference

__all__ = [
    "DOCUMENT_VERSION",
    "TEMPLATES",
    "Document",
    "GatheredSources",
    "Header",
    "Preference",
    "PreferenceSettings",
    "Provenance",
    "Question",
    "Reward",
    "Rft",
    "Section",
    "Training",
    "Triple",
    "adopt",
    "append",
    "check",
    "create",
    "gather_sources",
    "insert_after",
    "is_ulid",
    "load",
    "mined",
    "new_document",
    "new_ulid",
    "parse",
    "remove",
    "render_instruction",
    "render_preference",
    "renew_id",
    "save",
    "section_id",
]
