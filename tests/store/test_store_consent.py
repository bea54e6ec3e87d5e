"""Consent to run what a document names: asked once, and again when the command is another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlm.errors import ConsentError, ForeignFolderError
from dlm.store import Consents, identify


class Person:
    """Answers questions and keeps them."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.questions: list[str] = []

    def __call__(self, question: str) -> bool:
        self.questions.append(question)
        return self.answers.pop(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "work"
    place.mkdir()
    (place / "judge.sh").write_text("#!/bin/sh\necho 1\n", encoding="utf-8")
    (place / "rules.json").write_text("{}", encoding="utf-8")
    return place


@pytest.fixture
def consents(tmp_path: Path) -> Consents:
    return Consents(tmp_path / "home")


ARGV = ("sh", "judge.sh", "--rules=rules.json")


def require(
    consents: Consents, folder: Path, person: Person | None, argv: tuple[str, ...] = ARGV, trust: bool = False
) -> None:
    consents.require(argv, folder, named_by="notes.dlm", trust=trust, ask=person)


def test_a_yes_is_asked_for_once_and_shows_what_would_run(consents: Consents, folder: Path) -> None:
    person = Person(True)
    require(consents, folder, person)
    require(consents, folder, person)
    require(consents, folder, None)  # remembered where nobody can be asked, too
    assert len(person.questions) == 1
    for shown in ("notes.dlm", "sh judge.sh --rules=rules.json", str(folder), str(folder / "judge.sh")):
        assert shown in person.questions[0]


def test_a_no_is_not_remembered_and_nothing_is_written(
    consents: Consents, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConsentError, match="was not allowed"):
        require(consents, folder, Person(False))
    assert not (tmp_path / "home").exists()
    require(consents, folder, Person(True))


@pytest.mark.parametrize("change", ["script", "rules", "argument", "folder", "program"])
def test_another_command_asks_again(
    consents: Consents, folder: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(consents, folder, Person(True))
    argv = ARGV
    if change == "script":
        (folder / "judge.sh").write_text("#!/bin/sh\necho 2\n", encoding="utf-8")
    elif change == "rules":
        (folder / "rules.json").write_text("[]", encoding="utf-8")
    elif change == "argument":
        argv = (*ARGV, "--loud")
    elif change == "folder":  # the same bytes beside other files, which they may read
        folder = folder.rename(folder.with_name("elsewhere"))
    else:
        (folder / "sh").write_text("#!/bin/sh\n", encoding="utf-8")
        (folder / "sh").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    person = Person(True)
    require(consents, folder, person, argv)
    assert len(person.questions) == 1


def test_what_is_put_back_needs_no_new_consent(consents: Consents, folder: Path) -> None:
    require(consents, folder, Person(True))
    before = (folder / "judge.sh").read_bytes()
    (folder / "judge.sh").write_bytes(b"other")
    with pytest.raises(ConsentError):
        require(consents, folder, None)
    (folder / "judge.sh").write_bytes(before)
    require(consents, folder, None)


def test_without_a_terminal_the_refusal_says_what_to_type(consents: Consents, folder: Path) -> None:
    with pytest.raises(ConsentError) as caught:
        require(consents, folder, None)
    assert "--trust" in caught.value.next_step
    assert caught.value.found == "sh judge.sh --rules=rules.json"
    assert caught.value.exit_code == 1


def test_trust_holds_for_one_time(consents: Consents, folder: Path, tmp_path: Path) -> None:
    require(consents, folder, None, trust=True)
    assert not (tmp_path / "home").exists()
    with pytest.raises(ConsentError):
        require(consents, folder, None)


def test_a_command_cannot_hide_itself_from_the_one_who_is_asked(consents: Consents, folder: Path) -> None:
    person = Person(True)
    require(consents, folder, person, ("rm", "-rf", "~", "\x1b[2K\x1b[1A", "\u202egood"))
    assert "\x1b" not in person.questions[0]
    assert "\u202e" not in person.questions[0]
    assert "\\x1b[2K" in person.questions[0]


def test_deleting_the_file_takes_a_consent_back(consents: Consents, folder: Path, tmp_path: Path) -> None:
    require(consents, folder, Person(True))
    (kept,) = (tmp_path / "home" / "consent").iterdir()
    kept.unlink()
    with pytest.raises(ConsentError):
        require(consents, folder, None)


def test_a_program_by_path_is_read_like_a_script(folder: Path) -> None:
    assert [Path(place).name for place, _ in identify(["./judge.sh"], folder).files] == ["judge.sh"]
    assert identify(["no-such-program-anywhere", "x\0y", "n" * 5000], folder).files == ()


def test_a_folder_of_someone_else_s_is_left_alone(folder: Path) -> None:
    with pytest.raises(ForeignFolderError):
        require(Consents(folder), folder, Person(True))
