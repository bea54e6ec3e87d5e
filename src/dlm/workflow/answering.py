"""A process that answers questions for the web server, which itself never loads a model: `python -m dlm.workflow.answering DOC`.

It reads requests as JSON lines and writes what happens as JSON lines, keeps the two newest policies loaded, and ends when
its input does: with the server, however that ends, or after ten idle minutes, to give the memory back.

    in   {"id": 1, "versions": [null, "v0001"], "question": "…", "settings": {…}, "seed": 0}    null: the current version
         {"cancel": 1}
    out  {"id": 1, "slot": 0, "kind": "loading" | "answers" | "piece" | "done" | "fault", …}
         {"id": 1, "kind": "end"}
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dlm.errors import DlmError
from dlm.model import Policy, Sample, Settings
from dlm.store import Home
from dlm.workflow.project import find_project
from dlm.workflow.prompt import BASE, answer_stream, open_policy, pick_version

__all__ = ["main"]

KEPT = 2  # policies: two versions are compared
IDLE_S = 600.0


class _Policies:
    """The policies that were asked last."""

    def __init__(self, document: Path) -> None:
        self._document = document
        self._kept: OrderedDict[tuple[str, str], Policy] = OrderedDict()

    def name_of(self, wanted: str | None) -> str:
        """The version that is meant: the wanted one, or what is current now."""
        if wanted is not None:
            return wanted
        store = Home.open().find(find_project(self._document).dlm_id)
        if store is None:
            return BASE
        with store:
            picked = pick_version(store, None).value
        return BASE if picked is None else picked.name

    def has(self, name: str) -> bool:
        return self._key(name) in self._kept

    def get(self, name: str) -> Policy:
        """The policy of a version.

        Raises:
            DlmError: it cannot be loaded.
        """
        key = self._key(name)
        if key not in self._kept:
            while len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            self._kept[key] = open_policy(self._document, name)[0]
        self._kept.move_to_end(key)
        return self._kept[key]

    def _key(self, name: str) -> tuple[str, str]:
        """With what else of the document a policy is made of: its base, system prompt and precision."""
        project = find_project(self._document)
        header = None if project.document is None else project.document.header
        about = (
            ""
            if header is None
            else f"{header.base_model}\n{header.training.precision}\n{header.system_prompt}"
        )
        return name, about


class _Desk:
    """Requests in, events out. One question at a time; cancellations are heard in between."""

    def __init__(self, source: IO[str], sink: IO[str]) -> None:
        self._sink = sink
        self._asked: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._cancelled: set[int] = set()
        threading.Thread(target=self._listen, args=(source,), daemon=True).start()

    def next(self) -> dict[str, Any] | None:
        """The next request; None when there will be none."""
        try:
            return self._asked.get(timeout=IDLE_S)
        except queue.Empty:
            return None

    def is_cancelled(self, request: int) -> bool:
        return request in self._cancelled

    def tell(self, **event: Any) -> None:
        self._sink.write(json.dumps(event) + "\n")
        self._sink.flush()

    def _listen(self, source: IO[str]) -> None:
        for line in source:
            told = json.loads(line)
            if "cancel" in told:
                self._cancelled.add(int(told["cancel"]))
            else:
                self._asked.put(told)
        self._asked.put(None)
        # A long answer is not waited for: nobody is there to read it.
        os._exit(0)


def _answer(desk: _Desk, policies: _Policies, request: dict[str, Any]) -> None:
    """Answer with each version in turn, piece by piece, so that both grow side by side."""
    number = int(request["id"])
    settings = Settings(**request["settings"])
    streams: dict[int, Iterator[str | Sample]] = {}
    begun = time.monotonic()
    for slot, wanted in enumerate(request["versions"]):
        try:
            name = policies.name_of(wanted)
            if not policies.has(name):
                desk.tell(id=number, slot=slot, kind="loading", version=name)
            policy = policies.get(name)
            streams[slot] = answer_stream(policy, request["question"], settings, int(request["seed"]))
            desk.tell(id=number, slot=slot, kind="answers", version=name)
        except DlmError as fault:
            desk.tell(id=number, slot=slot, kind="fault", message=fault.message, next=fault.next_step)
    while streams and not desk.is_cancelled(number):
        for slot, stream in list(streams.items()):
            try:
                piece = next(stream)
            except DlmError as fault:
                desk.tell(id=number, slot=slot, kind="fault", message=fault.message, next=fault.next_step)
                del streams[slot]
                continue
            if isinstance(piece, str):
                desk.tell(id=number, slot=slot, kind="piece", text=piece)
            else:
                desk.tell(
                    id=number,
                    slot=slot,
                    kind="done",
                    text=piece.text,
                    finish_reason=piece.finish_reason,
                    tokens=len(piece.ids),
                    seconds=round(time.monotonic() - begun, 2),
                )
                del streams[slot]
    desk.tell(id=number, kind="end")


def main(document: Path) -> None:
    """Answer until the input ends."""
    desk, policies = _Desk(sys.stdin, sys.stdout), _Policies(document)
    sys.stdout = sys.stderr  # what a library prints must not stand between our lines
    desk.tell(kind="ready")
    while (request := desk.next()) is not None:
        if not desk.is_cancelled(int(request["id"])):
            _answer(desk, policies, request)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
