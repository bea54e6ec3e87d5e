"""`dlm init` and `dlm check`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dlm.document import TEMPLATES, load

from .conftest import BODY, DLM_ID, HEADER, Dlm


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_document_is_clean_and_says_what_to_do_next(template: str, dlm: Dlm) -> None:
    result = dlm("init", "my notes.dlm", "--template", template)
    assert "dlm train 'my notes.dlm'" in result.stdout
    assert load(Path("my notes.dlm")).header.base_model == "pocket"
    assert "no problems" in dlm("check", "my notes.dlm").stdout


def test_init_makes_missing_folders_and_never_overwrites(dlm: Dlm) -> None:
    dlm("init", "deep/er/notes.dlm")
    before = Path("deep/er/notes.dlm").read_bytes()
    assert "there already" in dlm("init", "deep/er/notes.dlm", expect=2).stderr
    assert "there already" in dlm("init", "deep", expect=2).stderr
    assert Path("deep/er/notes.dlm").read_bytes() == before
    assert "cannot be made" in dlm("init", "deep/er/notes.dlm/x.dlm", expect=1).stderr


def test_init_on_another_base(dlm: Dlm) -> None:
    dlm("init", "a.dlm", "--base", "qwen2.5-0.5b")
    assert load(Path("a.dlm")).header.base_model == "qwen2.5-0.5b"
    assert "pocket" in dlm("init", "b.dlm", "--base", "pockt", expect=1).stderr
    assert not Path("b.dlm").exists()


def test_adopt_gives_a_header_and_keeps_every_byte(dlm: Dlm) -> None:
    Path("plain.dlm").write_bytes(BODY.replace("\n", "\r\n").encode())
    assert "dlm init --adopt plain.dlm" in dlm("check", "plain.dlm", expect=1).stdout
    dlm("init", "--adopt", "plain.dlm")
    assert Path("plain.dlm").read_bytes().endswith(BODY.replace("\n", "\r\n").encode())
    assert "no problems" in dlm("check", "plain.dlm").stdout
    dlm("init", "--adopt", "plain.dlm", expect=2)


def test_a_copy_gets_an_id_of_its_own(dlm: Dlm, document: Path) -> None:
    shutil.copy(document, "copy.dlm")
    dlm("init", "--new-id", "copy.dlm")
    assert load(Path("copy.dlm")).header.dlm_id != DLM_ID
    assert load(document).header.dlm_id == DLM_ID


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["a.dlm", "--adopt", "b.dlm"],
        ["--adopt", "b.dlm", "--template", "qa"],
        ["--new-id", "b.dlm", "--base", "pocket"],
    ],
)
def test_init_wants_one_thing(args: list[str], dlm: Dlm) -> None:
    dlm("init", *args, expect=2)


def test_check_lists_every_problem_at_its_place(dlm: Dlm) -> None:
    Path("bad.dlm").write_text(HEADER + "\n::Instruction::\n### Q\nWhy?\n\n ::prose::\n", encoding="utf-8")
    result = dlm("check", "bad.dlm", expect=1)
    assert "bad.dlm:7:3: " in result.stdout
    assert "write: ::instruction::" in result.stdout
    assert "write: ::prose::" in result.stdout
    assert "problems" in result.stdout.splitlines()[-1]
    assert result.stderr == ""


def test_check_counts_and_warns(dlm: Dlm) -> None:
    text = HEADER + "\nProse.\n" + BODY + "### Q !probe\nAnd?\n### A\nYes.\n"
    Path("a.dlm").write_bytes(b"\xef\xbb\xbf" + text.encode())
    result = dlm("check", "a.dlm")
    assert "2 sections, 1 question, 1 probe, 0 pairs, 1 warning" in result.stdout
    assert "warning: " in result.stdout


def test_check_of_several_documents(dlm: Dlm, document: Path) -> None:
    Path("bad.dlm").write_text("nothing\n", encoding="utf-8")
    result = dlm("check", "notes.dlm", "bad.dlm", expect=1)
    assert "in 1 of 2 documents" in result.stdout
    dlm("check", "notes.dlm", "missing.dlm", expect=2)


def test_check_of_what_is_no_document(dlm: Dlm) -> None:
    Path("folder").mkdir()
    Path("binary.dlm").write_bytes(bytes(range(256)) * 100)
    dlm("check", "folder", expect=2)
    dlm("check", "binary.dlm", expect=1)
