"""Processes that take their steps in turns, and what each of them measures about its own.

Every side of a comparison is a process of its own, with its own memory and settings, and all of them are alive at once;
a step of one is followed by a step of the next. What disturbs the machine disturbs all sides alike.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

Run = Callable[[Mapping[str, Any], "Baton"], None]


class Baton:
    """A side's end: it waits for its turn, measures a step, and hands back."""

    def __init__(self, connection: Connection, device: str) -> None:
        self._connection, self._device = connection, device
        self._counter: Any = None
        self._cpu = self._wall = 0.0

    def ready(self, **facts: Any) -> None:
        """Say what was loaded and measured so far, and wait for the first turn."""
        self._say(facts)
        self._wait()

    def stepped(self, last: bool = False) -> None:
        """A step is done: report it and, unless it was the last one, wait for the next turn."""
        if self._device == "cuda":
            import torch

            torch.cuda.synchronize()
        step = {"cpu_s": time.process_time() - self._cpu, "wall_s": time.perf_counter() - self._wall}
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            step["flops"], self._counter = self._counter.total, None
        self._say(step)
        if not last:
            self._wait()

    def done(self, **facts: Any) -> None:
        """Say what is known at the end."""
        self._say(facts | {"peak_rss_mb": peak_mb(self._device)})

    def _say(self, message: Mapping[str, Any]) -> None:
        self._connection.send_bytes(json.dumps(message).encode())

    def _wait(self) -> None:
        if json.loads(self._connection.recv_bytes())["count"]:
            from kernels import ProductCounter

            self._counter = ProductCounter()
            self._counter.__enter__()
        self._cpu, self._wall = time.process_time(), time.perf_counter()


class Side:
    """The driver's end of a side."""

    def __init__(self, name: str, run: Run, spec: Mapping[str, Any]) -> None:
        self.name = name
        self._connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_child, args=(run, json.dumps(spec), theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.facts = self._hear()

    def step(self, *, count: bool = False) -> dict[str, Any]:
        """Let the side take one step; with `count`, matrix products are counted and time means nothing."""
        self._connection.send_bytes(json.dumps({"count": count}).encode())
        return self._hear()

    def finish(self) -> None:
        """Collect what the side knows at its end."""
        self.facts |= self._hear()
        self._process.join()

    def _hear(self) -> dict[str, Any]:
        try:
            heard: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except EOFError:
            self._process.join()
            raise SystemExit(f"{self.name} ended early with status {self._process.exitcode}") from None
        return heard


def _child(run: Run, spec: str, connection: Connection) -> None:
    import warnings

    from transformers.utils import logging

    warnings.simplefilter("ignore")  # what the libraries say about each other
    logging.disable_progress_bar()
    settings = json.loads(spec)
    run(settings, Baton(connection, settings["device"]))


def take_turns(sides: list[Side], steps: int, *, count_last: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Let all sides take their steps alternately, the first one changing from step to step; the last step is counted
    unless `count_last` is off."""
    taken: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    for step in range(steps):
        turn = step % len(sides)
        for side in sides[turn:] + sides[:turn]:
            taken[side.name].append(side.step(count=count_last and step == steps - 1))
    for side in sides:
        side.finish()
    return taken


def resident_mb() -> float:
    """Memory this process holds now, in MB; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def peak_mb(device: str) -> float:
    """Most memory this process has held, in MB: on CUDA the allocator's peak, elsewhere the resident set's."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def median_of(steps: list[dict[str, Any]], name: str) -> float:
    return statistics.median(step[name] for step in steps)
