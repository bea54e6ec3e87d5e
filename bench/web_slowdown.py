"""What an open page costs the training that it shows, for bench/web.py.

One training of the embedded base. By turns the server serves three event streams that are read and not drawn, and sleeps
(SIGSTOP): so all that the app does is counted, its watcher included. A turn of serving is compared with the mean of the
turns of sleep on either side, so that a load that comes and goes falls out; of these ratios the median is told, with its
95 % interval from order statistics. Steps are counted by the times that the training logged, wall time by the clock, and
the training's own processor time by what the kernel counted for its threads, in nanoseconds: beside other jobs wall time
says little, and this still does.

A machine whose speed swings by some per cent from turn to turn cannot decide whether two per cent are missing. What it can
tell sharply is the app's own processor time while it serves: that is what a training on the same core would lose, and one
on another core loses less.
"""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from served import ID, Server, project, row

from dlm.store import Home, Store

__all__ = ["measure_slowdown"]

TURN_S = 2.0
SETTLES_S = 0.25  # after a signal, before a turn is counted
GOAL = 2.0  # per cent
FEWEST = 6  # of fewer values the smallest and the largest are no 95 % interval of the median
COMMAND = ("train", "--phase", "sft", "--set", "min_steps=100000")


@dataclass(frozen=True)
class Turn:
    """One turn: whether pages were served, from when to when, and the processor time of training and app within it."""

    served: bool
    begin: float
    end: float
    cpu_s: float
    app_s: float


def measure_slowdown(pairs: int = 30) -> list[dict[str, Any]]:
    """Rows of the table; `pairs` turns with and about as many without."""
    with project() as document:
        command = [sys.executable, "-m", "dlm", COMMAND[0], str(document), *COMMAND[1:]]
        training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for_steps(document, training)
            with Server(document) as server:
                for _ in range(3):
                    threading.Thread(target=_drain, args=(server,), daemon=True).start()
                time.sleep(1)
                turns = [_turn(server, training.pid, served=n % 2 == 1) for n in range(2 * pairs + 1)]
        finally:
            training.send_signal(signal.SIGTERM)  # a background job ignores SIGINT
            training.wait(timeout=60)
        with _store() as store:
            times = store.metrics.read(1, ["train_loss"])["train_loss"].times
    wall = [(turn.end - turn.begin) / _steps(times, turn) for turn in turns]
    cpu = [turn.cpu_s / _steps(times, turn) for turn in turns]
    return [
        row("a step beside a server that sleeps", "ms", [1000 * one for one in wall[0::2]]),
        row("a step beside three streams", "ms", [1000 * one for one in wall[1::2]]),
        _decided("training slowed by three streams, wall time", wall),
        _decided("training slowed by three streams, its processor time", cpu),
        _said(
            "the app's processor time beside three streams, of one core",
            [100 * turn.app_s / (turn.end - turn.begin) for turn in turns[1::2]],
        ),
    ]


def median_interval(values: list[float]) -> tuple[float, float]:
    """The 95 % interval of a median from order statistics: no shape of the distribution is assumed.

    The k-th smallest and the k-th largest of n, with k the largest for which a binomial(n, 1/2) falls below k with a
    probability of at most .025.
    """
    n, k, below = len(values), 0, 0.0
    while k < n // 2:
        below += math.comb(n, k) / 2**n
        if below > 0.025:
            break
        k += 1
    ordered = sorted(values)
    return ordered[max(0, k - 1)], ordered[min(n - 1, n - k)]


def _decided(measure: str, per_step: list[float]) -> dict[str, Any]:
    """The row of a slowdown in per cent: of turns that alternate, sleep first and last."""
    asleep = [(before + after) / 2 for before, after in zip(per_step[:-1:2], per_step[2::2], strict=True)]
    return _said(
        measure, [100 * (served / other - 1) for served, other in zip(per_step[1::2], asleep, strict=True)]
    )


def _said(measure: str, slowed: list[float]) -> dict[str, Any]:
    """The row of figures in per cent, and whether their median surely holds the goal."""
    low, high = median_interval(slowed)
    said = "held" if high <= GOAL else "missed" if low > GOAL else "undecided"
    if len(slowed) < FEWEST:
        said = "undecided"
    return {**row(measure, "%", slowed, str(GOAL)), "low": low, "high": high, "said": said}


def _turn(server: Server, pid: int, *, served: bool) -> Turn:
    server.process.send_signal(signal.SIGCONT if served else signal.SIGSTOP)
    time.sleep(SETTLES_S)
    begin, cpu, app = time.time(), _cpu_s(pid), _cpu_s(server.process.pid)
    time.sleep(TURN_S)
    return Turn(served, begin, time.time(), _cpu_s(pid) - cpu, _cpu_s(server.process.pid) - app)


def _steps(times: np.ndarray, turn: Turn) -> float:
    """The steps within a turn, with the shares of the first and the last."""
    begin, end = np.interp([turn.begin, turn.end], times, np.arange(len(times), dtype=float))
    return float(end - begin)


def _cpu_s(pid: int) -> float:
    """Processor time of all threads of a process, in seconds."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue  # a thread that has just ended
    return found / 1e9


def _store() -> Store:
    store = Home.open().find(ID)
    assert store is not None
    return store


def _wait_for_steps(document: Path, training: subprocess.Popen[bytes], enough: int = 50) -> None:
    for _ in range(600):
        time.sleep(0.2)
        if training.poll() is not None:
            break
        if Home.open().find(ID) is None:
            continue
        with _store() as store:
            series = store.metrics.read(1, ["train_loss"]).get("train_loss") if store.runs.list() else None
        if series is not None and len(series) >= enough:
            return
    sys.exit(f"the training of {document} did not begin")


def _drain(server: Server) -> None:
    with server.opener.open(server.base + "/live", timeout=600) as stream:
        while stream.read1(65536):
            pass
