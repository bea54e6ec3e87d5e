"""`dlm init` and `dlm check`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dlm.document import TEMPLATES, load

from .conftest import BODY, DLM_ID, HEADER, Dlm
from .test_schemas import validate


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
    assert "pocket" in dlm("init", "b.dlm", "--base", "pockt", expect=2).stderr
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


def test_a_missing_document_does_not_hide_the_others(dlm: Dlm, document: Path) -> None:
    Path("folder").mkdir()
    lines = dlm("check", "missing.dlm", "folder", "notes.dlm", expect=1).stdout.splitlines()
    assert lines[0].startswith("there is no file missing.dlm")
    assert lines[2].startswith("folder is not a file")
    assert lines[-2].startswith("notes.dlm: no problems")
    assert "in 2 of 3 documents" in lines[-1]
    data = validate(dlm.json("check", "missing.dlm", "notes.dlm", expect=1))
    assert [entry["ok"] for entry in data["documents"]] == [False, True]
    assert "no file" in dlm("check", "missing.dlm", expect=2).stderr


@pytest.mark.parametrize(
    ("base", "place", "said"),
    [
        ("pockt", "4:13", "write: base_model: pocket"),
        ("./nowhere", "4:13", "there is no folder"),
        ("hf:a/../b", "4:13", "no model on the Hub"),
    ],
)
def test_check_sees_a_base_that_is_not_there(base: str, place: str, said: str, dlm: Dlm) -> None:
    Path("a.dlm").write_text(HEADER.replace("pocket", base) + BODY, encoding="utf-8")
    text = dlm("check", "a.dlm", expect=1).stdout
    assert text.startswith(f"a.dlm:{place}: ")
    assert said in text
    (entry,) = validate(dlm.json("check", "a.dlm", expect=1))["documents"]
    assert entry["questions"] == 1
    assert [problem["code"] for problem in entry["problems"]] == ["base"]


def test_check_looks_for_a_base_beside_the_document(dlm: Dlm) -> None:
    folder = Path("elsewhere/model")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    Path("elsewhere/a.dlm").write_text(HEADER.replace("pocket", "./model") + BODY, encoding="utf-8")
    dlm("check", "elsewhere/a.dlm")


def test_check_reads_the_sources(dlm: Dlm) -> None:
    header = (
        HEADER.removesuffix("---\n") + "training:\n  sources:\n    - path: ../out\n    - path: texts\n---\n"
    )
    Path("a.dlm").write_text(header + BODY, encoding="utf-8")
    lines = dlm("check", "a.dlm", expect=1).stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines[:2]] == ["a.dlm:7:13", "a.dlm:8:13"]
    Path("texts").mkdir()
    Path("texts/image.png").write_bytes(b"\x00")
    Path("a.dlm").write_text(header.replace("../out", "texts/image.png"), encoding="utf-8")
    warned = dlm("check", "a.dlm").stdout
    assert "a.dlm:7:13: warning: the source file texts/image.png is left out: not a text file" in warned
    assert "nothing here can be trained on" in warned
    Path("texts/good.txt").write_text("words", encoding="utf-8")
    assert "nothing here" not in dlm("check", "a.dlm").stdout


ONLY_PAIRS = "::preference::\n### Prompt\nHi\n### Chosen\nA\n### Rejected\nB\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "it is empty"),
        ("::instruction::\n### Q !probe\nWhy?\n### A\nSo.\n", "only probes"),
    ],
    ids=["empty", "probes"],
)
def test_check_says_that_nothing_can_be_trained_on(body: str, said: str, dlm: Dlm) -> None:
    Path("a.dlm").write_text(HEADER + body, encoding="utf-8")
    text = dlm("check", "a.dlm").stdout
    assert f"nothing here can be trained on: {said}" in text
    assert "warning" in text


def test_check_knows_that_preferences_alone_can_be_trained_on(dlm: Dlm) -> None:
    Path("a.dlm").write_text(HEADER + ONLY_PAIRS, encoding="utf-8")
    assert "nothing here" not in dlm("check", "a.dlm").stdout
    off = HEADER.removesuffix("---\n") + "training: {preference: {enabled: false}}\n---\n"
    Path("a.dlm").write_text(off + ONLY_PAIRS, encoding="utf-8")
    assert "only preferences, and training.preference.enabled is false" in dlm("check", "a.dlm").stdout


def test_check_warns_of_what_train_refuses(dlm: Dlm) -> None:
    header = HEADER.removesuffix("---\n") + "training:\n  adapters: {kind: {}}\n  precision: fp16\n---\n"
    Path("a.dlm").write_text(
        header + BODY.replace("::instruction::", "::instruction#kind::"), encoding="utf-8"
    )
    (entry,) = validate(dlm.json("check", "a.dlm"))["documents"]
    assert {warning["code"] for warning in entry["warnings"]} == {"adapter", "precision"}


def test_init_of_another_base_is_misuse_and_says_what_to_type(dlm: Dlm) -> None:
    assert "next: --base pocket" in dlm("init", "b.dlm", "--base", "pockt", expect=2).stderr
    Path("plain.dlm").write_text(BODY, encoding="utf-8")
    dlm("init", "--adopt", "plain.dlm", "--base", "pockt", expect=2)


def test_init_says_next_what_there_is_to_do(dlm: Dlm) -> None:
    assert "next: edit it; it explains itself\n      dlm check a.dlm\n" in dlm("init", "a.dlm").stdout
    assert "next: edit it\n      dlm check b.dlm" in dlm("init", "b.dlm", "--template", "qa").stdout
    Path("plain.dlm").write_text(BODY, encoding="utf-8")
    assert "next: dlm check plain.dlm\n      dlm train" in dlm("init", "--adopt", "plain.dlm").stdout


def test_check_of_what_is_no_document(dlm: Dlm) -> None:
    Path("folder").mkdir()
    Path("binary.dlm").write_bytes(bytes(range(256)) * 100)
    dlm("check", "folder", expect=2)
    dlm("check", "binary.dlm", expect=1)
