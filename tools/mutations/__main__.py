"""Put each fault into a copy of the tree and see that a test fails.

    python -m tools.mutations [--bug N ...]

Prints a table, and writes it to `bench/results/mutations.json` unless only some bugs were asked for. Ends with status 1
when a fault survives, and 2 when a fault's text is not in the source or the tests fail before any fault is put in.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.report import print_table, write_report

from tools.mutations import FAULTS
from tools.mutations.fault import BUGS, Fault, FaultNotFoundError
from tools.mutations.trial import Verdict, copy_of, judge, run_tests

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.mutations", description=__doc__.partition("\n")[0])
    parser.add_argument("--bug", type=int, action="append", choices=list(BUGS), help="only this bug's faults")
    wanted = parser.parse_args().bug
    # shells start background jobs deaf to SIGINT, and so would be the runs that tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faults = [fault for fault in FAULTS if wanted is None or fault.bug in wanted]
    began = time.perf_counter()
    try:
        verdicts = try_all(faults)
    except FaultNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    if verdicts is None:
        return 2
    survived = sum(not verdict.caught for verdict in verdicts)
    table = [verdict.row for verdict in verdicts]
    if wanted is None:
        seconds = round(time.perf_counter() - began)
        facts = {"faults": len(faults), "survived": survived, "seconds": seconds, "commit": commit()}
        write_report("mutations", table, command="python -m tools.mutations", **facts)
    else:
        print_table(table)
    print(f"{len(faults) - survived} of {len(faults)} faults were noticed")
    return 1 if survived else 0


def try_all(faults: Sequence[Fault]) -> list[Verdict] | None:
    """The verdict on each fault; None where the tests fail without any."""
    with copy_of(ROOT) as root:
        for fault in faults:  # all of them first: a text that is gone is known at once
            with fault.put_into(root):
                pass
        print("the tests without a fault …", flush=True)
        clean = run_tests(root, sorted({test for fault in faults for test in fault.tests}))
        if clean.status != 0:
            print(clean.output, file=sys.stderr)
            return None
        verdicts = []
        for number, fault in enumerate(faults, 1):
            verdict = judge(fault, root)
            verdicts.append(verdict)
            mark = "noticed by " + verdict.test if verdict.caught else "SURVIVED: " + verdict.why
            print(f"{number}/{len(faults)} bug {verdict.row['bug']}: {fault.what}: {mark}", flush=True)
        return verdicts


def commit() -> str:
    """The commit the tree stands at, with a + where files differ from it."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno", "src", "tests"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")


if __name__ == "__main__":
    sys.exit(main())
