"""The same chart of a million points in TensorBoard and Trackio, for bench/web.py. Neither is a dependency of dlm."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["rival_rows"]

WRITE_TENSORBOARD = """
import sys, numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
writer = EventFileWriter(sys.argv[2], max_queue_size=10000)
for step, value in enumerate(np.load(sys.argv[1]).tolist(), start=1):
    writer.add_event(Event(wall_time=1e9 + step, step=step, summary=Summary(value=[Summary.Value(tag="train_loss", simple_value=value)])))
writer.close()
"""
WRITE_TRACKIO = """
import sys, numpy as np, trackio
from trackio.sqlite_storage import SQLiteStorage
values = np.load(sys.argv[1]).tolist()
SQLiteStorage.init_db("bench")
for begin in range(0, len(values), 10000):
    part = values[begin:begin + 10000]
    SQLiteStorage.bulk_log("bench", "run", [{"train_loss": value} for value in part], steps=list(range(begin + 1, begin + 1 + len(part))))
"""
SHOWN = """async (timeout) => {
  // A chart is there when a drawing of at least 200 by 100 pixels has a stroke: an SVG path, or pixels on a canvas.
  const painted = (canvas) => {
    if (canvas.width < 200 || canvas.height < 100) return false;
    const copy = document.createElement("canvas");
    copy.width = canvas.width; copy.height = canvas.height;
    const pen = copy.getContext("2d"); pen.drawImage(canvas, 0, 0);
    const pixels = pen.getImageData(0, 0, copy.width, copy.height).data;
    for (let i = 0; i < pixels.length; i += 4) {
      const [r, g, b, a] = pixels.slice(i, i + 4);
      if (a > 40 && Math.max(r, g, b) - Math.min(r, g, b) > 20) return true;  // grids and axes are grey
    }
    return false;
  };
  const all = (root) => [...root.querySelectorAll("*")].flatMap((one) => one.shadowRoot ? [one, ...all(one.shadowRoot)] : [one]);
  while (performance.now() < timeout) {
    const nodes = all(document);
    if (nodes.some((one) => (one.tagName === "CANVAS" && painted(one)) ||
        (one.tagName === "path" && (one.getAttribute("d") ?? "").length > 2000))) return performance.now();
    await new Promise(requestAnimationFrame);
  }
  return null;
}"""
TIMEOUT_S = 60  # for a page to draw
READ_S = 300  # for a server to read what was written
BUDGET_S = 60  # for the repeats of one of them
BOARD, TRACKIO = "http://localhost:6106", "http://127.0.0.1:7860"


def rival_rows(
    python: str, browser: Any, values: np.ndarray, repeats: int = 3
) -> list[tuple[str, str, list[float]]]:
    """Navigation to the drawn chart in each of them, in ms; of what was not drawn the row says so, with how long was waited, in s."""
    rows: list[tuple[str, str, list[float]]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "values.npy", values)
        logs, home = folder / "logs", folder / "trackio"
        home.mkdir()
        environment = {
            **os.environ,
            "TRACKIO_DIR": str(home),
            "GRADIO_ANALYTICS_ENABLED": "0",
            "HF_HUB_OFFLINE": "1",
        }
        for script, where in ((WRITE_TENSORBOARD, logs), (WRITE_TRACKIO, home)):
            command = [python, "-c", script, str(folder / "values.npy"), str(where)]
            subprocess.run(command, check=True, env=environment)
        tensorboard = [
            python,
            "-m",
            "tensorboard.main",
            "--logdir",
            str(logs),
            "--port",
            "6106",
            "--load_fast=false",
        ]
        every = [*tensorboard, "--samples_per_plugin", "scalars=0"]
        trackio = [python, "-c", "import trackio; trackio.show(project='bench', open_browser=False)"]
        for title, command, url in (
            (
                "TensorBoard as it comes (1,000 points kept)",
                tensorboard,
                f"{BOARD}/?darkMode=false#timeseries",
            ),
            ("TensorBoard with every point", every, f"{BOARD}/?darkMode=false#timeseries"),
            ("Trackio", trackio, f"{TRACKIO}/?project=bench"),
        ):
            measure = f"{title}: one series of {len(values):,}, first chart drawn"
            try:
                rows.append((measure, "ms", _shown(command, url, browser, environment, repeats, len(values))))
            except TimeoutError as why:
                rows.append((f"{measure}: {why}", "s", [float(str(why).split()[-2])]))
    return rows


def _shown(
    command: list[str], url: str, browser: Any, environment: dict[str, str], repeats: int, last: int
) -> list[float]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # The page is measured, not how long a server reads its files in the background.
        if not _comes_true(lambda: _has_read_to(last) if url.startswith(BOARD) else bool(_answer(url))):
            raise TimeoutError(f"its server had not read them within {READ_S} s")
        begin, taken = time.monotonic(), []
        for _ in range(repeats):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(url, wait_until="commit")
            shown = page.evaluate(SHOWN, TIMEOUT_S * 1000)
            page.close()
            if shown is None:
                raise TimeoutError(f"none within {TIMEOUT_S} s")
            taken.append(shown)
            if time.monotonic() - begin > BUDGET_S:
                break
        return taken
    finally:
        process.terminate()
        process.wait(timeout=20)


def _has_read_to(last: int) -> bool:
    """Whether TensorBoard knows the last step."""
    found = json.loads(_answer(f"{BOARD}/data/plugin/scalars/scalars?run=.&tag=train_loss") or "[]")
    return bool(found) and found[-1][1] == last


def _answer(url: str) -> bytes:
    """What a server says, nothing while it is not there or does not know of that yet."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


def _comes_true(ready: Callable[[], bool], deadline_s: float = READ_S) -> bool:
    deadline = time.monotonic() + deadline_s
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True
