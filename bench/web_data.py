"""The RL DATA tab over 50,000 pairs: how long a filter or a search takes, in the server and in the browser.

    python bench/web_data.py [--pairs 50000] [--rounds 15]

Pairs are those of tools/docs/page_data.py, made different by a number in each text. "server" is the whole answer of
`GET /data` as htmx asks for it, over a real socket; "browser" is from the last key or choice to the list being there in
Chromium, the form's own pause of 120 ms after a key taken out. The target of both is 150 ms in the median.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from report import write_report
from tools.docs import page_data

from dlm.store import Home, NewSignal
from dlm.workflow.signals import look_at_pairs, refresh

ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"
PAUSE_MS = 120
TARGET_MS = 150
QUERIES = {
    "all, newest first": {},
    "last page": {"page": "2500"},
    "search, one word (half of all)": {"search": "practices"},
    "search, two words": {"search": "latency rest"},
    "search, beginning of a word": {"search": "gar"},
    "search, one pair": {"search": "nr31337"},
    "source": {"source": "grader"},
    "judge": {"judge": "judge-7"},
    "flag": {"flag": "topic_drift"},
    "least margin": {"margin": "5"},
    "widest margin first": {"order": "widest"},
    "chosen longer first": {"order": "longer"},
    "search, flag, margin, order": {
        "search": "best",
        "flag": "topic_drift",
        "margin": "3",
        "order": "widest",
    },
    "run that used them": {"run": "1"},
    "tab orpo": {"tab": "orpo"},
}


def fill(home: Path, document: Path, count: int) -> dict[str, float]:
    """A store with `count` pairs; seconds of its steps."""
    made = list(page_data.pairs(min(count, 3600)))
    signals = []
    for number in range(count):
        pair = made[number % len(made)]
        signals.append(
            NewSignal(
                "pair", "experiment" if number % 50 == 0 else "grader", f"{pair.prompt} (nr{number})",
                f"{pair.chosen} nr{number}", f"{pair.rejected} nr{number}", pair.chosen_score, pair.rejected_score,
                "1-10", f"judge-{number % 20}", pair.reason, {"number": number}, "2026-03-14T09:30:00Z",
            )
        )  # fmt: skip
    seconds = {}
    with Home.open(home).store(ID) as store:
        from dlm.store import RunSpec

        began = time.perf_counter()
        store.signals.add(signals)
        seconds["import_s"] = time.perf_counter() - began
        began = time.perf_counter()
        refresh(store, document, look_at=0)
        look_at_pairs(store, document)
        seconds["flags_s"] = time.perf_counter() - began
        began = time.perf_counter()
        run = store.runs.record(RunSpec("preference", "orpo"), status="complete")
        store.signals.log_use(run.id, signals[: count // 2])
        seconds["log_of_a_run_s"] = time.perf_counter() - began
        seconds["store_mb"] = (
            sum(path.stat().st_size for path in store.folder.iterdir() if path.is_file()) / 1e6
        )
    return seconds


@contextmanager
def serving(home: Path, document: Path) -> Iterator[str]:
    environment = {**os.environ, "DLM_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "dlm", "ui", str(document), "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.send_signal(2)
        server.wait(timeout=20)


def timed(rounds: int, act: Callable[[], Any]) -> list[float]:
    """Milliseconds of each round, the first one (which warms caches) left out."""
    found = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        act()
        found.append(1000 * (time.perf_counter() - began))
    return found[1:]


def in_server(url: str, rounds: int) -> dict[str, list[float]]:
    with httpx.Client(follow_redirects=True, headers={"HX-Request": "true"}, timeout=120) as client:
        client.get(url)
        base = url.partition("/?")[0]

        def ask(query: dict[str, str]) -> None:
            answer = client.get(f"{base}/data", params={"tab": "preference", **query})
            assert answer.status_code == 200
            assert "signal" in answer.text

        return {name: timed(rounds, lambda q=query: ask(q)) for name, query in QUERIES.items()}  # type: ignore[misc]


WATCH = """
() => {
  window.settled = 0;
  document.addEventListener("htmx:afterSettle", () => requestAnimationFrame(() => { window.settled = performance.now(); }));
}
"""


def in_browser(url: str, rounds: int) -> dict[str, list[float]]:
    """From the key or the choice to the painted list, by the page's own clock."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("DLM_CHROMIUM") or shutil.which("chromium")
    found: dict[str, list[float]] = {"type a search": [], "choose a flag": [], "choose an order": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1360, "height": 900})
        page.goto(url)
        page.goto(f"{url.partition('/?')[0]}/data")
        page.evaluate(WATCH)

        def act(element: str, change: str, kind: str) -> float:
            script = f"""async () => {{
              const field = document.querySelector('{element}');
              const began = performance.now();
              window.settled = 0;
              {change}
              field.dispatchEvent(new Event('{kind}', {{bubbles: true}}));
              while (!window.settled) await new Promise(requestAnimationFrame);
              return window.settled - began;
            }}"""
            return float(page.evaluate(script))

        words = (
            "latency",
            "garbage",
            "secrets in",
            "search product",
            "feature fl",
            "accessible",
            "on-call",
            "leaks pyth",
        )
        for turn in range(rounds + 1):
            word, flag = words[turn % len(words)], ("topic_drift", "")[turn % 2]
            order = ("widest", "newest", "longer")[turn % 3]
            times = {
                "type a search": act("#search", f"field.value = '{word}';", "input") - PAUSE_MS,
                "choose a flag": act("select[name=flag]", f"field.value = '{flag}';", "change"),
                "choose an order": act("select[name=order]", f"field.value = '{order}';", "change"),
            }
            if turn:
                for name, value in times.items():
                    found[name].append(value)
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="filled once, and used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.store or Path(temporary)
        document, home = folder / "notes.dlm", folder / "home"
        filled = folder / "filled.json"  # what filling it took: said by later runs, too
        if not filled.exists():
            folder.mkdir(parents=True, exist_ok=True)
            document.write_text(f"---\ndlm_id: {ID}\nbase_model: pocket\n---\n\nProse.\n", encoding="utf-8")
            taken = {"pairs": options.pairs, **fill(home, document, options.pairs)}
            filled.write_text(json.dumps(taken), encoding="utf-8")
        made = {name: round(value, 2) for name, value in json.loads(filled.read_text()).items()}
        with serving(home, document) as url:
            rows = [
                {
                    "where": where,
                    "what": name,
                    "median_ms": round(statistics.median(times), 1),
                    "worst_ms": round(max(times), 1),
                    "held": statistics.median(times) <= TARGET_MS,
                }
                for where, measure in (("server", in_server), ("browser", in_browser))
                for name, times in measure(url, options.rounds).items()
            ]
    load = round(os.getloadavg()[0], 1)
    write_report("web_data", rows, rounds=options.rounds, load_average=load, **made)  # fmt: skip
    print(made, "load", load)


if __name__ == "__main__":
    main()
