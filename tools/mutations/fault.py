"""What a fault is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BUGS", "Fault", "FaultNotFoundError"]

BUGS = {
    1: "accumulation normalised per micro-batch",
    2: "labels all masked after truncation, NaN saved",
    3: "double BOS",
    4: "pad = eos masks the end token",
    5: "merge across the boundary of prompt and completion",
    6: "wrong reference",
    7: "dropout live in the reference pass",
    8: "stale reference cache",
    9: "scale lost in save, load or merge",
    10: "gradient reaches nothing",
    11: "packing contamination",
    12: "resume drift",
    13: "sampling and training disagree",
    14: "denominators of the GRPO family",
    15: "metrics that lie",
}


class FaultNotFoundError(Exception):
    """The text that a fault replaces is not in the source, or more than once: the fault must be written anew."""


@dataclass(frozen=True)
class Fault:
    """One replacement of text in one file, and the tests that must notice it."""

    bug: int | None  # number in `BUGS`; None: none of the fifteen
    what: str
    file: str  # below src/dlm
    old: str  # stands in the file exactly once
    new: str
    tests: tuple[str, ...]  # pytest's node ids, parameters left out

    def source(self, root: Path) -> Path:
        """The file it changes, in a tree at `root`."""
        return root / "src" / "dlm" / self.file

    @contextmanager
    def put_into(self, root: Path) -> Iterator[None]:
        """Change the tree at `root` while the context lasts.

        Raises:
            FaultNotFoundError: the text is not there exactly once.
            SyntaxError: what would come of it is no Python.
        """
        path = self.source(root)
        text = path.read_text(encoding="utf-8")
        found = text.count(self.old)
        if found != 1:
            raise FaultNotFoundError(
                f"{self.what}: its text stands {found} times in {self.file}:\n{self.old}"
            )
        changed = text.replace(self.old, self.new)
        compile(changed, self.file, "exec", dont_inherit=True)
        path.write_text(changed, encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(text, encoding="utf-8")
