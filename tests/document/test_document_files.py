"""Documents on disk: saved whole or not at all, started, adopted, copied; and the files they name as sources."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dlm.document import (
    TEMPLATES,
    adopt,
    append,
    create,
    gather_sources,
    is_ulid,
    load,
    new_document,
    new_ulid,
    parse,
    render_instruction,
    renew_id,
    save,
)
from dlm.errors import ConflictError, DlmError, DocumentError, TextError, UsageError
from hostile_text import HEADER

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small document on disk."""
    path = tmp_path / "notes.dlm"
    path.write_bytes((HEADER + "Text.\n").encode())
    return path


def test_save_replaces_the_bytes_and_returns_their_hash(path: Path) -> None:
    document = load(path)
    text = append(document, render_instruction([("q", "a")]))
    sha256 = save(path, text, document.sha256)
    assert path.read_bytes() == text.encode()
    assert load(path).sha256 == sha256
    assert [file.name for file in path.parent.iterdir()] == ["notes.dlm"]


def test_save_writes_nothing_when_the_file_changed(path: Path) -> None:
    document = load(path)
    path.write_bytes(path.read_bytes() + b"An editor's line.\n")
    with pytest.raises(ConflictError, match="nothing was written"):
        save(path, "mine", document.sha256)
    assert path.read_bytes().endswith(b"An editor's line.\n")
    path.unlink()
    with pytest.raises(ConflictError, match="gone"):
        save(path, "mine", document.sha256)
    assert not list(path.parent.iterdir())


def test_save_notices_an_editor_that_saves_while_the_new_file_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = load(path)
    sync = os.fsync

    def slow_disk(handle: int) -> None:
        sync(handle)
        path.write_bytes(b"An editor's version.\n")

    monkeypatch.setattr(os, "fsync", slow_disk)
    with pytest.raises(ConflictError):
        save(path, "mine", document.sha256)
    assert path.read_bytes() == b"An editor's version.\n"
    assert len(list(path.parent.iterdir())) == 1


def test_of_many_savers_with_one_hash_exactly_one_wins(path: Path) -> None:
    document = load(path)
    won: list[int] = []

    def saver(number: int) -> None:
        try:
            save(path, f"{document.text}{number}\n", document.sha256)
        except ConflictError:
            return
        won.append(number)

    threads = [threading.Thread(target=saver, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_text() == f"{document.text}{won[0]}\n"


def test_save_keeps_mode_mark_line_ends_and_link(tmp_path: Path) -> None:
    real = tmp_path / "real.dlm"
    link = tmp_path / "link.dlm"
    data = b"\xef\xbb\xbf" + (HEADER + "Text.\n").replace("\n", "\r\n").encode()
    real.write_bytes(data)
    real.chmod(0o640)
    link.symlink_to(real.name)
    document = load(link)
    save(link, append(document, render_instruction([("q", "a")])), document.sha256)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    saved = real.read_bytes()
    assert saved.startswith(data)
    assert saved[len(data) :] == b"\r\n::instruction::\r\n### Q\r\nq\r\n### A\r\na\r\n"


@pytest.mark.parametrize("text", ["a\x00", "a\ud800"])
def test_save_refuses_what_utf8_cannot_hold(path: Path, text: str) -> None:
    with pytest.raises(TextError):
        save(path, text, load(path).sha256)
    with pytest.raises(TextError):
        create(path.with_name("new.dlm"), text)
    assert len(list(path.parent.iterdir())) == 1


def test_a_read_only_file_is_never_replaced(path: Path) -> None:
    document = load(path)
    plain = path.with_name("my notes.txt")
    plain.write_text("Text.\n")
    for file in (path, plain):
        file.chmod(0o444)
        before = file.read_bytes(), file.stat().st_ino
        with pytest.raises(
            DlmError, match=r"read-only; nothing was written\n  next: chmod u\+w .*notes"
        ) as caught:
            save(file, "mine", document.sha256) if file is path else adopt(file)
        assert caught.value.exit_code == 1
        assert (file.read_bytes(), file.stat().st_ino) == before
        assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert len(list(path.parent.iterdir())) == 2


@contextmanager
def somebody(folder: Path) -> Iterator[None]:
    """Root may write everywhere: here it is nobody for a while, who owns the folder."""
    if os.geteuid():
        yield
        return
    for owned in (folder, *folder.iterdir()):
        os.chown(owned, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_save_in_a_read_only_folder_is_a_plain_error() -> None:
    with tempfile.TemporaryDirectory() as name:  # below a folder that anybody may enter
        path = Path(name) / "notes.dlm"
        create(path, f"{HEADER}Text.\n")
        before = load(path).sha256
        with somebody(path.parent):
            saved = save(path, "Mine.\n", before)  # nothing else is in the way
            path.parent.chmod(0o500)
            try:
                with pytest.raises(DlmError, match="cannot be written"):
                    save(path, "x", saved)
            finally:
                path.parent.chmod(0o700)
        assert path.read_bytes() == b"Mine.\n"


def test_create_never_touches_a_file_that_is_there(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(UsageError):
        create(path, "x")
    assert path.read_bytes() == before
    with pytest.raises(UsageError):
        create(path.parent / "no" / "x.dlm", "x")
    create(path.with_name("b.dlm"), "x\n")
    assert path.with_name("b.dlm").read_bytes() == b"x\n"
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("name", ["absent.dlm", ".", "a\x00b", "x" * 300])
def test_what_cannot_be_read_is_a_plain_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DlmError):
        load(tmp_path / name)


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_is_a_document_that_can_be_trained(template: str) -> None:
    text = new_document("hf:org/name", template)
    document = parse(text)
    assert document.header.base_model == "hf:org/name"
    assert not document.warnings
    assert text.isascii()
    questions = [question for section in document.sections for question in section.questions]
    assert [question for question in questions if not question.probe]
    assert [question for question in questions if question.probe] or template == "preference"
    assert new_document("hf:org/name", template) != text


def test_the_demo_document_is_the_release_notes_template() -> None:
    example = load(ROOT / "examples" / "release-notes.dlm")
    assert example.text == new_document("pocket", "release-notes", dlm_id=example.header.dlm_id)
    questions = [question for section in example.sections for question in section.questions]
    assert len([question for question in questions if not question.probe]) == 10
    assert len([question for question in questions if question.probe]) == 2
    assert questions[0].prompt == "How should release notes read?"
    assert questions[0].answer == "Short, factual, and low-drama."
    assert len([triple for section in example.sections for triple in section.triples]) >= 3


@pytest.mark.parametrize(
    "base", ["./my base: v2", 'a"b', "#x", "~/models/x", "null", "- a", "hf:a/b-c_d.e", "yes", "é"]
)
def test_any_base_name_survives_the_header(base: str) -> None:
    assert parse(new_document(base)).header.base_model == base


def test_unknown_templates_and_empty_bases_are_refused() -> None:
    with pytest.raises(UsageError, match="starter"):
        new_document("pocket", "startr")
    with pytest.raises(UsageError):
        new_document(" ")


@pytest.mark.parametrize(
    "data",
    [
        b"Just text.\n",
        b"\r\n::instruction::\r\n### Q\r\nq\r\n### A\r\na",
        b"\xef\xbb\xbfText.\n",
        b"",
        b"a\r",
    ],
)
def test_adopting_leaves_every_other_byte_alone(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    document = adopt(path, "./a b")
    mark = b"\xef\xbb\xbf"
    assert path.read_bytes().endswith(data.removeprefix(mark))
    assert path.read_bytes().startswith(mark) is data.startswith(mark)
    assert document.header.base_model == "./a b"
    assert (document.newline == "\r\n") is (b"\r\n" in data)
    with pytest.raises(UsageError, match="already"):
        adopt(path)


def test_adopting_a_file_with_problems_reports_them_where_they_are_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text\n ::prose::\n")
    with pytest.raises(DocumentError) as caught:
        adopt(path)
    assert [(problem.line, problem.code) for problem in caught.value.problems] == [(2, "near-fence")]
    assert path.read_text() == "text\n ::prose::\n"


@pytest.mark.parametrize(
    "text",
    [
        "---\nA rule, then text.\n\nMore.\n",
        "---\ntitle: Notes\n---\nText.\n",
        "---\n\nText: a: b\n\n---\n",
        "--- \nText.\n",
        "---\n",
    ],
)
def test_adopting_text_that_begins_with_dashes_offers_a_way_out(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(text)
    with pytest.raises(UsageError, match="begins with ---, which is read as a header") as caught:
        adopt(path)
    assert "put an empty line at its top" in caught.value.next_step
    assert path.read_text() == text
    path.write_text("\n" + text)
    assert adopt(path).sections[0].prose == text.strip("\n")


@pytest.mark.parametrize("header", ["dlm_id: x", "base_model: pocket\nbroken: [", "{dlm_version: 15}"])
def test_adopting_a_document_with_a_broken_header_sends_to_check(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.dlm"
    path.write_text(f"---\n{header}\n---\nText.\n")
    with pytest.raises(UsageError, match="has a header already") as caught:
        adopt(path)
    assert caught.value.next_step == f"dlm check {path}"


def test_adopting_what_is_no_utf8_text_says_how_to_convert_it(tmp_path: Path) -> None:
    path = tmp_path / "my notes.txt"
    path.write_bytes("Text.\n".encode("utf-16"))
    with pytest.raises(DocumentError) as caught:
        adopt(path)
    assert caught.value.next_step == (
        f"iconv -f UTF-16 -t UTF-8 '{path}' > '{path.with_name('my notes-utf8.txt')}'"
    )


def test_renewing_an_id_changes_nothing_else() -> None:
    for quoted in ("{}", "'{}'", '"{}"', "!!str {}  # mine"):
        source = (
            HEADER.replace("01KPQ9X1000000000000000000", quoted.format("01KPQ9X1000000000000000000")) + "text"
        )
        renewed = parse(renew_id(parse(source)))
        assert renewed.header.dlm_id != "01KPQ9X1000000000000000000"
        assert renewed.text.replace(renewed.header.dlm_id, "X") in re.sub(
            """['"]?01KPQ9X10+['"]?""", "X", source
        ).replace("!!str ", "") or quoted.startswith("!!")
        assert renewed.text.endswith("# mine\n---\ntext")


def test_ids_are_ulids_in_the_order_of_time() -> None:
    ids = [new_ulid()]
    for _ in range(3):
        time.sleep(0.002)
        ids.append(new_ulid())
    assert ids == sorted(ids)
    assert all(is_ulid(known) for known in ids)
    assert len({new_ulid() for _ in range(1000)}) == 1000
    assert not is_ulid("01KPQ9X100000000000000000I")
    assert not is_ulid("01KPQ9X1000000000000000000\n")


def with_sources(tmp_path: Path, *sources: str) -> Path:
    """A document with these sources."""
    lines = "".join(f"    - {source}\n" for source in sources)
    path = tmp_path / "notes.dlm"
    path.write_text(HEADER[:-4] + f"training:\n  sources:\n{lines}---\ntext\n")
    return path


def test_sources_become_prose_in_a_fixed_order(tmp_path: Path) -> None:
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "notes" / ".git").mkdir()
    (tmp_path / "notes" / "b.md").write_bytes(b"\xef\xbb\xbf\r\nB\r\n")
    (tmp_path / "notes" / "a.md").write_text("A\n::prose::\n")
    (tmp_path / "notes" / "deep" / "c.md").write_text("C")
    (tmp_path / "notes" / "deep" / "c.txt").write_text("no")
    (tmp_path / "notes" / "draft.md").write_text("no")
    (tmp_path / "notes" / ".git" / "x.md").write_text("no")
    (tmp_path / "notes" / "pic.md").write_bytes(b"\x89PNG\x00")
    (tmp_path / "notes" / "latin.md").write_bytes(b"caf\xe9")
    (tmp_path / "notes" / "void.md").write_text("\n")
    (tmp_path / "one.txt").write_text("One")
    path = with_sources(
        tmp_path, '{path: ./notes, include: ["**/*.md"], exclude: ["draft*"]}', "{path: one.txt}", "{path: .}"
    )
    gathered = gather_sources(load(path))
    assert [(file.as_posix(), text) for file, text in gathered.files][:4] == [
        ("notes/a.md", "A\n::prose::"), ("notes/b.md", "B"), ("notes/deep/c.md", "C"), ("one.txt", "One"),
    ]  # fmt: skip
    assert {file.as_posix() for file, _ in gathered.files[4:]} == {"notes/deep/c.txt", "notes/draft.md"}
    assert {file.name: reason.split(" ")[0] for file, reason in gathered.skipped} == {
        "pic.md": "not", "latin.md": "not", "void.md": "empty",
    }  # fmt: skip


def test_sources_never_leave_the_documents_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    home = tmp_path / "home"
    (home / "in").mkdir(parents=True)
    (home / "in" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (home / "in" / "loop").symlink_to(home / "in" / "loop")
    (home / "out").symlink_to(tmp_path)
    for outside in ("..", "../secret.txt", "/etc/passwd", "out", "in/../../secret.txt", "~/x", "absent"):
        path = with_sources(home, "{path: in}", f"{{path: '{outside}'}}")
        with pytest.raises(DocumentError) as caught:
            gather_sources(load(path))
        assert [(problem.line, problem.code) for problem in caught.value.problems] == [(8, "source")]
    gathered = gather_sources(load(with_sources(home, "{path: in}")))
    assert not gathered.files
    assert {file.name for file, _ in gathered.skipped} == {"link.txt", "loop"}
    with pytest.raises(DocumentError):
        gather_sources(parse(path.read_text()))


def test_a_document_of_one_megabyte_is_read_in_time(tmp_path: Path) -> None:
    """The benchmark holds the half second; this holds the order of magnitude on a busy machine."""
    path = tmp_path / "big.dlm"
    pair = "### Q\nWhat is line {0}?\n### A\nIt is a line of some words, and it has the number {0}.\n\n"
    path.write_text(HEADER + "::instruction::\n" + "".join(map(pair.format, range(12_000))))
    assert path.stat().st_size > 1_000_000
    start = time.perf_counter()
    code = "import sys; from dlm.document import load; load(sys.argv[1]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
    assert time.perf_counter() - start < 5
