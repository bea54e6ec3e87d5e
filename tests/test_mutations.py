"""The faults of `tools.mutations`: each can still be put in, names tests that exist, and is judged by them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools.mutations import FAULTS
from tools.mutations.fault import BUGS, Fault, FaultNotFoundError
from tools.mutations.trial import copy_of, judge

ROOT = Path(__file__).parents[1]


def one_line(old: str, new: str) -> Fault:
    return Fault(1, "a fault", "room.py", old, new, ("tests/test_room.py::test_two",))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A house of one room, with a test that notices half of what can be wrong with it."""
    (tmp_path / "src" / "dlm").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    (tmp_path / "src" / "dlm" / "__init__.py").touch()
    (tmp_path / "src" / "dlm" / "room.py").write_text("def two():\n    return 1 + 1\n")
    (tmp_path / "tests" / "test_room.py").write_text(
        "def test_two():\n    from dlm.room import two\n\n    assert two() > 1\n"
    )
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.bug or 'also'}: {fault.what}")
def test_a_fault_can_be_put_in(fault: Fault) -> None:
    """Else the list has rotted: the source was rewritten, and the fault must be, too."""
    text = fault.source(ROOT).read_text(encoding="utf-8")
    assert text.count(fault.old) == 1
    assert fault.new != fault.old
    compile(text.replace(fault.old, fault.new), fault.file, "exec", dont_inherit=True)
    for test in fault.tests:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_no_fault_is_listed_twice() -> None:
    assert len({(fault.file, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("bug", BUGS)
def test_every_bug_has_tests_of_its_name_and_two_faults(bug: int) -> None:
    of_its_name = re.compile(rf"test_(bug_\d+_and_)?bug_{bug}_")
    named = [any(map(of_its_name.search, fault.tests)) for fault in FAULTS if fault.bug == bug]
    assert len(named) >= 2
    assert any(named)


def test_the_working_tree_is_not_touched(tree: Path) -> None:
    before = (tree / "src" / "dlm" / "room.py").read_text()
    with copy_of(tree) as copy:
        with one_line("1 + 1", "1 + 2").put_into(copy):
            assert "1 + 2" in (copy / "src" / "dlm" / "room.py").read_text()
            assert (tree / "src" / "dlm" / "room.py").read_text() == before
        assert (copy / "src" / "dlm" / "room.py").read_text() == before


@pytest.mark.parametrize("old", ["1 + 3", "1"])
def test_a_text_that_is_gone_or_stands_twice_is_an_error(tree: Path, old: str) -> None:
    with pytest.raises(FaultNotFoundError, match="its text stands"), one_line(old, "2").put_into(tree):
        pass


def test_a_change_that_is_no_python_is_an_error(tree: Path) -> None:
    with pytest.raises(SyntaxError), one_line("1 + 1", "1 +").put_into(tree):
        pass


@pytest.mark.big
@pytest.mark.parametrize(
    ("new", "caught", "why"),
    [
        ("1 + 0", True, "assert 1 > 1"),
        ("1 + 2", False, "every test passed"),
        ("1 + one", False, "NameError"),  # it never ran, so nothing looked at it
    ],
)
def test_a_verdict_is_of_what_the_tests_saw(tree: Path, new: str, caught: bool, why: str) -> None:
    verdict = judge(one_line("1 + 1", new), tree)
    assert (verdict.caught, verdict.row["caught"]) == (caught, "yes" if caught else "no")
    assert why in verdict.why
