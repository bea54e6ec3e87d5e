"""How fast the web app is: `python bench/web.py [PART …]` writes bench/results/web.json. Parts: start, charts, live,
slowdown; all but the rivals without arguments. `--rivals PYTHON` names a Python of an environment of its own that has
tensorboard and trackio, for the same chart in them.

start      `dlm ui` to the first page, a new process each time
charts     a series of 1,000,000 points, and ten of 100,000, in Chromium: navigation to the drawn chart (the browser's own
           clock, from navigation start to the end of the drawing), and a zoom from the key to the drawn chart
live       from a step's log call in a training process to the drawn pixel, of the oldest point of each event
slowdown   steps per second of one training, in turns with three event streams read and with the server asleep

bench/web_data.py measures the RL DATA tab. Figures are medians, with the smallest and the largest beside them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import numpy as np
from report import write_report
from web_rivals import rival_rows

from dlm.store import Home, RunSpec, Store

ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"
DOCUMENT = f"---\ndlm_id: {ID}\ndlm_version: 15\nbase_model: pocket\n---\n\n::instruction::\n"
QUESTIONS = "".join(f"### Q\nWhat is number {n}?\n### A\nIt is {n * n}.\n" for n in range(12))
MILLION, TENTH = 1_000_000, 100_000
PARTS = ("start", "charts", "live", "slowdown")


def row(measure: str, unit: str, values: list[float], goal: str = "") -> dict[str, Any]:
    return {
        "measure": measure,
        "unit": unit,
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "n": len(values),
        "goal": goal,
    }


@contextmanager
def project() -> Iterator[Path]:
    """A folder with a document and a home of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLM_HOME"] = str(Path(folder) / "home")
        document = Path(folder) / "bench.dlm"
        document.write_text(DOCUMENT + QUESTIONS, encoding="utf-8")
        yield document


class Server:
    """`dlm ui` of a document, and a way to ask it."""

    def __init__(self, document: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dlm", "ui", str(document), "--no-browser"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.base = self.url.partition("/?")[0]
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def get(self, path: str) -> bytes:
        with self.opener.open(path if path.startswith("http") else self.base + path, timeout=60) as answer:
            return bytes(answer.read())

    def __enter__(self) -> Server:
        self.get(self.url)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=30)


def seconds(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def curve(n: int, seed: int) -> np.ndarray:
    """A loss that falls, with the noise of single batches."""
    noise = np.random.default_rng(seed).normal(0, 0.08, n)
    return np.asarray(0.3 + 1.7 * np.exp(-np.arange(n) / (n / 6)) + noise)


def record(store: Store, n: int, seed: int) -> int:
    """A complete run with a series of n points, written as the store writes them."""
    with store.lock("bench"):
        run = store.runs.start(RunSpec("sft", "sft", planned_steps=n))
        with store.metrics.writer(run.id) as writer:
            for step, value in enumerate(curve(n, seed).tolist(), start=1):
                writer.log(step, {"train_loss": value})
        store.runs.finish(run.id, "complete")
        return run.id


def measure_start(repeats: int = 7) -> list[dict[str, Any]]:
    def once() -> None:
        with Server(document):
            taken.append(time.perf_counter() - begin)

    with project() as document:
        with Home.open().store(ID) as store:
            store.attach(document)
            record(store, 1000, 0)
        taken: list[float] = []
        for _ in range(repeats):
            begin = time.perf_counter()
            once()
    return [row("dlm ui to the first page", "s", taken, "1.5")]


def chromium() -> str:
    found = os.environ.get("DLM_CHROMIUM") or shutil.which("chromium") or ""
    if not found:
        sys.exit("no Chromium: install the package chromium, or name a browser in DLM_CHROMIUM")
    return found


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield opened
        opened.close()


DRAWN = """async (name) => {
  const marks = () => performance.getEntriesByName(name);
  while (!marks().length) await new Promise(requestAnimationFrame);
  return marks()[0].startTime;
}"""
LINES = """() => document.querySelectorAll('[data-chart="loss"] .legend li').length"""
ZOOM = """async ([name, key]) => {
  const marks = () => performance.getEntriesByName(name).length;
  const before = marks(), begin = performance.now();
  document.querySelector('[data-chart="loss"] .plot').dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  while (marks() === before) await new Promise(requestAnimationFrame);
  return performance.getEntriesByName(name).at(-1).startTime - begin;
}"""


def measure_charts(repeats: int = 7) -> list[dict[str, Any]]:
    with project() as document:
        with Home.open().store(ID) as store:
            store.attach(document)
            ten = [record(store, TENTH, seed) for seed in range(10)]
            million = record(store, MILLION, 99)
        views = {
            f"one series of {MILLION:,}": f"/training?run={million}",
            f"ten series of {TENTH:,}": f"/training?run={ten[0]}&with={','.join(map(str, ten[1:]))}",
        }
        rows = []
        with browser() as opened:
            for name, path in views.items():
                first, again, zooms = [], [], []
                for _ in range(repeats):
                    with Server(document) as server:  # a new one each time: nothing is cached in it
                        page = opened.new_page(viewport={"width": 1280, "height": 900})
                        page.goto(
                            server.url.replace("/?", "/prompt?")
                        )  # refused; warms nothing but the socket
                        page.goto(server.base + "/static/icon.svg")
                        page.context.add_cookies(_cookies(server))
                        for taken in (first, again):
                            page.goto(server.base + path)
                            taken.append(page.evaluate(DRAWN, "dlm:loss"))
                            drawn = page.evaluate(LINES)
                            if drawn != path.count(",") + 1 + path.count("with="):
                                sys.exit(f"{name}: {drawn} lines were drawn")
                        for key in "++-":
                            zooms.append(page.evaluate(ZOOM, ["dlm:loss", key]))
                            page.wait_for_timeout(300)
                        page.close()
                rows.append(row(f"{name}: first chart drawn, new server", "ms", first, "300"))
                rows.append(row(f"{name}: first chart drawn, again", "ms", again, "300"))
                rows.append(row(f"{name}: zoom", "ms", zooms, "150"))
    return rows


def _cookies(server: Server) -> list[dict[str, str]]:
    jar = next(one.cookiejar for one in server.opener.handlers if hasattr(one, "cookiejar"))
    return [{"name": one.name, "value": one.value or "", "url": server.base} for one in jar]


LISTEN = """() => {
  window.delays = [];
  document.addEventListener("dlm:changed", ({detail}) => {
    const loss = detail.points?.series.train_loss;
    if (!loss) return;
    const oldest = loss.times[Math.min(1, loss.times.length - 1)];  // the first was known
    requestAnimationFrame(() => requestAnimationFrame(() => window.delays.push(Date.now() / 1000 - oldest)));
  });
}"""


def measure_live(duration_s: float = 20.0) -> list[dict[str, Any]]:
    with project() as document, Home.open().store(ID) as store, store.lock("bench"), browser() as opened:
        store.attach(document)
        run = store.runs.start(RunSpec("sft", "sft", planned_steps=2000))
        with Server(document) as server, store.metrics.writer(run.id) as writer:
            for step in range(1, 50):
                writer.log(step, {"train_loss": 2 / step, "grad_norm": 1.0})
            writer.flush()
            page = opened.new_page(viewport={"width": 1280, "height": 900})
            page.context.add_cookies(_cookies(server))
            page.goto(f"{server.base}/training?run={run.id}")
            page.evaluate(DRAWN, "dlm:loss")
            page.evaluate(LISTEN)
            end = time.monotonic() + duration_s
            step = 50
            while time.monotonic() < end:
                writer.log(step, {"train_loss": 2 / step, "grad_norm": 1.0})
                step += 1
                time.sleep(0.05)
            page.wait_for_timeout(1000)
            delays = page.evaluate("window.delays")
    return [row("step to pixel, the oldest point of an event", "ms", [1000 * one for one in delays], "1000")]


def measure_slowdown(windows: int = 14, window_s: float = 6.0) -> list[dict[str, Any]]:
    """One training; by turns the server sleeps (SIGSTOP), or serves three streams that are read and not drawn."""
    with project() as document:
        training = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dlm",
                "train",
                str(document),
                "--phase",
                "sft",
                "--set",
                "min_steps=100000",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            store = _wait_for_steps(document)
            with Server(document) as server, store:
                for _ in range(3):
                    threading.Thread(target=_drain, args=(server,), daemon=True).start()
                time.sleep(2)
                rates: dict[bool, list[float]] = {True: [], False: []}
                for window in range(windows):
                    awake = window % 2 == 0
                    server.process.send_signal(signal.SIGCONT if awake else signal.SIGSTOP)
                    time.sleep(1)
                    begin, first = time.monotonic(), _newest(store)
                    time.sleep(window_s)
                    rates[awake].append((_newest(store) - first) / (time.monotonic() - begin))
        finally:
            training.send_signal(signal.SIGINT)
            training.wait(timeout=60)
        pairs = zip(rates[True], rates[False], strict=True)
        slowdowns = [100 * (1 - awake / asleep) for awake, asleep in pairs]
    return [
        row("training beside three streams", "steps/s", rates[True]),
        row("training beside a server that sleeps", "steps/s", rates[False]),
        row("training slowed, neighbouring windows", "%", slowdowns, "2"),
    ]


def _wait_for_steps(document: Path) -> Store:
    for _ in range(600):
        time.sleep(0.2)
        store = Home.open().find(ID)
        if store is None:
            continue
        if any(run.status == "running" for run in store.runs.list()) and _newest(store) > 20:
            return store
        store.close()
    sys.exit(f"the training of {document} did not begin")


def _newest(store: Store) -> int:
    """Steps of the running run whose log came in by now, between flushes by their pace."""
    series = store.metrics.read(1, ["train_loss"]).get("train_loss") if store.runs.list() else None
    return int(series.steps[-1]) if series is not None and len(series) else 0


def _drain(server: Server) -> None:
    with server.opener.open(server.base + "/live", timeout=600) as stream:
        while stream.read1(65536):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all without any")
    parser.add_argument("--rivals", metavar="PYTHON", help="a Python that has tensorboard and trackio")
    asked = parser.parse_args()
    measures = {
        "start": measure_start,
        "charts": measure_charts,
        "live": measure_live,
        "slowdown": measure_slowdown,
    }
    rows = []
    for name in asked.parts or PARTS:
        print(f"{name} …", file=sys.stderr)
        rows += measures[name]()
    if asked.rivals:
        print("rivals …", file=sys.stderr)
        with browser() as opened:
            rows += [row(*one) for one in rival_rows(asked.rivals, opened, curve(MILLION, 99))]
    write_report("web", rows, load=os.getloadavg())


if __name__ == "__main__":
    main()
