"""`dlm show` tells what the gate said of each version."""

from __future__ import annotations

import re
from pathlib import Path

from dlm.store import Home
from recorded_runs import HOSTILE, record_runs, record_verdict

from .conftest import DLM_ID, Dlm
from .test_schemas import validate


def test_show_tells_the_newest_verdict_beside_its_version(dlm: Dlm, document: Path) -> None:
    with Home.open().store(DLM_ID) as store:
        store.attach(document)
        record_runs(store)
        assert "gate" not in dlm("show", "notes.dlm").stdout
        record_verdict(store, "v0001", "missing")
        record_verdict(store, "v0001", "fail")
        record_verdict(store, "v0002", "pass", "v0001")
    text = dlm("show", "notes.dlm").stdout
    assert re.search(r"^v0001 +FAIL ", text, re.M)
    assert re.search(r"^v0002 +current +PASS ", text, re.M)
    assert "gate on v0001  FAIL against base, " in text
    assert "FAIL  tables.score >= 0.875: value 0.6250, needed 0.8750, gold 1.0000" in text
    assert "tables.score >= 0.5" not in text  # it holds: --json has it
    assert "\x1b" not in text
    versions = validate(dlm.json("show", "notes.dlm"))["versions"]
    told = {one["name"]: one["verdicts"] for one in versions}
    assert [(one["verdict"], one["baseline"]) for one in told["v0001"]] == [
        ("missing", "base"),
        ("fail", "base"),
    ]
    assert [one["status"] for one in told["v0001"][-1]["conditions"]] == ["PASS", "FAIL", "MISSING"]
    assert told["v0001"][-1]["conditions"][2]["condition"] == HOSTILE
    assert told["v0001"][-1]["conditions"][0]["difference"] == {
        "value": -0.125,
        "low": -0.25,
        "high": 0.0,
        "n": 8,
    }
    assert [one["verdict"] for one in told["v0002"]] == ["pass"]
