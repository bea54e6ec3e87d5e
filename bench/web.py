"""How fast the web app is: `python bench/web.py [PART …]` writes bench/results/web.json. Parts: start, charts, live,
slowdown; all but the rivals without arguments. `--rivals PYTHON` names a Python of an environment of its own that has
tensorboard and trackio, for the same chart in them. All of it takes some eight minutes; a part that is run alone leaves
the rows of the others in the file, each with the time and the load at which it was measured.

start      `dlm ui` to the first page, a new process each time
charts     a series of 1,000,000 points, and ten of 100,000, in Chromium: navigation to the drawn chart (the browser's own
           clock, from navigation start to the end of the drawing), and a zoom from the key to the drawn chart
live       from a step's log call in a training process to the drawn pixel, of the oldest point of each event
slowdown   steps of one training, in turns with three event streams read and with the server asleep (web_slowdown.py)

bench/web_data.py measures the RL DATA tab. Figures are medians, with the smallest and the largest beside them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from report import merge_report
from served import ID, Server, curve, project, record, row
from web_rivals import rival_rows
from web_slowdown import measure_slowdown

from dlm.store import Home, RunSpec

MILLION, TENTH = 1_000_000, 100_000
IDLE_MS = 4000
KNOWN = 49  # steps of the running run that the page begins with
PARTS = ("start", "charts", "live", "slowdown")


def measure_start(repeats: int = 5) -> list[dict[str, Any]]:
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


def measure_charts(repeats: int = 5) -> list[dict[str, Any]]:
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
                        page.context.add_cookies(_cookies(server))
                        for taken in (first, again):
                            page.goto(server.base + path)
                            taken.append(page.evaluate(DRAWN, "dlm:loss"))
                            drawn = page.evaluate(LINES)
                            if drawn != path.count(",") + 1 + path.count("with="):
                                sys.exit(f"{name}: {drawn} lines were drawn")
                            page.wait_for_timeout(IDLE_MS)  # what the curves say is worked out meanwhile
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


LISTEN = """(known) => {
  window.delays = [];
  document.addEventListener("dlm:changed", ({detail}) => {
    const loss = detail.points?.series.train_loss;
    const place = loss?.steps.findIndex((step) => step > known) ?? -1;  // the last known point comes again
    if (place < 0) return;
    known = loss.steps.at(-1);
    const oldest = loss.times[place];
    requestAnimationFrame(() => requestAnimationFrame(() => window.delays.push(Date.now() / 1000 - oldest)));
  });
}"""


def measure_live(duration_s: float = 20.0) -> list[dict[str, Any]]:
    with project() as document, Home.open().store(ID) as store, store.lock("bench"), browser() as opened:
        store.attach(document)
        run = store.runs.start(RunSpec("sft", "sft", planned_steps=2000))
        with Server(document) as server, store.metrics.writer(run.id) as writer:
            for step in range(1, KNOWN + 1):
                writer.log(step, {"train_loss": 2 / step, "grad_norm": 1.0})
            writer.flush()
            page = opened.new_page(viewport={"width": 1280, "height": 900})
            page.context.add_cookies(_cookies(server))
            page.goto(f"{server.base}/training?run={run.id}")
            page.evaluate(DRAWN, "dlm:loss")
            page.evaluate(LISTEN, KNOWN)
            end = time.monotonic() + duration_s
            step = KNOWN + 1
            while time.monotonic() < end:
                writer.log(step, {"train_loss": 2 / step, "grad_norm": 1.0})
                step += 1
                time.sleep(0.05)
            page.wait_for_timeout(1000)
            delays = page.evaluate("window.delays")
    return [row("step to pixel, the oldest point of an event", "ms", [1000 * one for one in delays], "1000")]


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
    for name in asked.parts or PARTS:
        print(f"{name} …", file=sys.stderr)
        merge_report("web", measures[name]())  # after each, so that what is measured is kept
    if asked.rivals:
        print("rivals …", file=sys.stderr)
        with browser() as opened:
            rivals = rival_rows(asked.rivals, opened, curve(MILLION, 99))
        merge_report("web", [row(*one) for one in rivals])


if __name__ == "__main__":
    main()
