"""Faults put into the source on purpose, one at a time, to show that the tests notice.

The fifteen bugs are those that shipped in other trainers; each has tests here named `test_bug_N_…`. A test that passes
proves little until it has been seen to fail: `python -m tools.mutations` copies the tree, puts each fault into the copy
as an exact replacement of text, and runs the tests that should notice.

    fault.py      what a fault is
    rows.py       faults between a document and the token ids that are trained on: bugs 2 to 5
    numbers.py    faults in what is computed from them: bugs 1, 10, 11, 13 to 15
    state.py      faults in what is kept, restored or compared with: bugs 6 to 9 and 12
    trial.py      a copy of the tree, and whether its tests notice
"""

from __future__ import annotations

from tools.mutations import numbers, rows, state
from tools.mutations.fault import BUGS

__all__ = ["FAULTS"]

FAULTS = sorted(
    (*rows.FAULTS, *numbers.FAULTS, *state.FAULTS), key=lambda fault: fault.bug or len(BUGS) + 1
)  # by the number of the bug; those of none last
