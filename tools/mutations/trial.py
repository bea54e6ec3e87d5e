"""A copy of the tree, and whether its tests notice a fault."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from tools.mutations.fault import Fault

__all__ = ["Result", "Verdict", "copy_of", "judge", "run_tests"]

_PARTS = ("src", "tests", "pyproject.toml")
_TESTS_FAILED = 1  # pytest's exit status; 2 to 5 say that it could not run them
_TEST_LIMIT_S = 300
_SHOWN = 90  # characters of a failure
_BROKEN = ("NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError")


@dataclass(frozen=True)
class Result:
    """What pytest said: its exit status, and the first test that failed, with the first line of why."""

    status: int
    test: str
    why: str
    output: str


@dataclass(frozen=True)
class Verdict:
    """Whether the tests noticed a fault, and which one did."""

    fault: Fault
    caught: bool
    test: str
    why: str

    @property
    def row(self) -> dict[str, str]:
        """As the table shows it."""
        return {
            "bug": "also" if self.fault.bug is None else str(self.fault.bug),
            "put in": self.fault.what,
            "file": self.fault.file,
            "test that failed": self.test,
            "caught": "yes" if self.caught else "no",
            "why": self.why,
        }


@contextmanager
def copy_of(tree: Path) -> Iterator[Path]:
    """A copy of what tests need, in a folder that goes when the context ends."""
    with TemporaryDirectory(prefix="mutations-") as folder:
        for part in _PARTS:
            if (tree / part).is_dir():
                shutil.copytree(tree / part, Path(folder, part), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(tree / part, folder)
        yield Path(folder)


def judge(fault: Fault, root: Path) -> Verdict:
    """Put a fault into the copy at `root` and run the tests that must notice it.

    A fault that does not even run is not caught: its test would fail without looking at anything.

    Raises:
        FaultNotFoundError: the text it replaces is not there exactly once.
    """
    with fault.put_into(root):
        result = run_tests(root, fault.tests, first_failure=True)
    broken = result.why.startswith(_BROKEN)
    if result.status == _TESTS_FAILED and not broken:
        return Verdict(fault, True, result.test, result.why)
    if result.status == 0:
        return Verdict(fault, False, "", "every test passed")
    return Verdict(fault, False, result.test, result.why or f"pytest ended with status {result.status}")


def run_tests(root: Path, tests: Sequence[str], *, first_failure: bool = False) -> Result:
    """Run tests of the copy at `root` against the copy's own source."""
    report = root / "report.xml"
    report.unlink(missing_ok=True)
    environment = (
        os.environ
        | {
            "PYTHONPATH": str(root / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",  # a change within a second, of no length, would not show in cached bytecode
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "DLM_TEST_EXAMPLES": "100",
        }
    )
    command = [sys.executable, "-m", "pytest", *tests, "-p", "no:cacheprovider", "-q", "--tb=short"]
    command += [f"--timeout={_TEST_LIMIT_S}", f"--junitxml={report}", f"--basetemp={root / 'tmp'}"]
    command += ["-x"] if first_failure else []
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    test, why = _first_failure(report) if report.exists() else ("", "")
    why = why.replace(f"{root}{os.sep}", "")[:_SHOWN]  # the copy's place is nobody's concern
    return Result(done.returncode, test, why, done.stdout + done.stderr)


def _first_failure(report: Path) -> tuple[str, str]:
    """The first test in pytest's report that failed, by its node's name, and the first line of why."""
    for case in ElementTree.parse(report).iter("testcase"):
        for kind in ("failure", "error"):
            found = case.find(kind)
            if found is not None:
                return case.get("name", ""), found.get("message", "").partition("\n")[0]
    return "", ""
