"""A person's grader: whatever it does costs the sample it does it on, and the counts stay exact."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlm.errors import GradingError
from dlm.grading import ErrorTally, GradeItem, Limits, make_grader

HOSTILE = """
import os, sys, time
print("at import")

def grade(sample, item):
    text = sample["output_text"]
    if text == "loop":
        while True:
            pass
    if text == "memory":
        hog = []
        while True:
            hog.append(bytearray(8 << 20))
    if text == "raise":
        raise RuntimeError("no")
    if text == "print":
        os.write(1, b'{"id": 1, "score": 1}\\n' * 1000)
        print("noise" * 10000, flush=True)
        sys.stderr.write("noise" * 10000)
    if text == "fork":
        os.fork()
    if text == "daemon":
        if os.fork() == 0:
            os.setsid()
            time.sleep(3600)
    if text == "nan":
        return float("nan")
    if text == "none":
        return None
    if text == "large":
        return 7
    if text == "exit":
        sys.exit(0)
    if text == "die":
        os._exit(3)
    if text == "signal":
        os.kill(os.getpid(), 11)
        time.sleep(60)
    if text == "parse":
        raise SampleParseError("no JSON")
    return 0.25 if item["weight"] == 1 else 0.75
"""


def _grader(tmp_path: Path, source: str, **limits: float):
    (tmp_path / "rubric.py").write_text(source)
    return make_grader(
        "python:rubric.py", folder=tmp_path, limits=Limits(**{"timeout_s": 4.0, "memory_mb": 256, **limits})
    )


def _item(text: str, weight: int = 1) -> GradeItem:
    return GradeItem("p", text, None, {"weight": weight})


def test_each_hostile_sample_costs_itself_alone(tmp_path):
    bad = ["loop", "memory", "raise", "nan", "none", "large", "exit", "die", "signal"]
    good = ["print", "fork", "daemon"]
    grader = _grader(tmp_path, HOSTILE)
    try:
        items = [_item(text) for word in bad + good for text in (word, "fine")]
        grades = grader.grade(items)
    finally:
        grader.close()
        grader.close()
    assert [grade.error for grade in grades] == ["grader", None] * len(bad) + [None, None] * len(good)
    assert all(grade.score == 0.25 for grade in grades if grade.error is None)
    messages = [grade.message for grade in grades if grade.error]
    assert messages[0] == "no score within 4 s"
    assert messages[1] == "out of memory"
    assert messages[2] == "RuntimeError: no"
    assert "nan" in messages[3]
    assert "7.0" in messages[5]


def test_a_sample_that_cannot_be_parsed_is_the_models_fault(tmp_path):
    grader = _grader(tmp_path, HOSTILE)
    try:
        [parse, fine] = grader.grade([_item("parse"), _item("fine", 2)])
    finally:
        grader.close()
    assert (parse.error, parse.scored, parse.message) == ("sample_parse", True, "SampleParseError: no JSON")
    assert fine.score == 0.75


def test_what_a_sample_and_its_item_hold(tmp_path):
    source = """
def grade(sample, item):
    assert sample == {"output_text": '{"a": 1}', "output_json": {"a": 1}, "finish_reason": "length"}, sample
    assert item == {"prompt": "p\\u20ac", "reference": "r", "weight": [1]}, item
    return True
"""
    grader = _grader(tmp_path, source)
    try:
        [grade] = grader.grade([GradeItem("p€", '{"a": 1}', "r", {"weight": [1]}, truncated=True)])
    finally:
        grader.close()
    assert (grade.score, grade.passed, grade.flags) == (1.0, True, ("truncated",))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces are Linux's")
def test_no_network_and_nothing_left_running(tmp_path):
    source = """
import os, socket, time

def grade(sample, item):
    if os.fork() == 0:
        os.setsid()
        while True:
            open(item["path"], "w").write(str(time.time()))
            time.sleep(0.01)
    while not os.path.exists(item["path"]):
        time.sleep(0.01)
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=0.5)
    except OSError as error:
        return 1.0 if error.errno == 101 else 0.5
    return 0.0
"""
    beat = tmp_path / "beat"
    grader = _grader(tmp_path, source, timeout_s=20)
    try:
        [grade] = grader.grade([GradeItem("p", "x", None, {"path": str(beat)})])
    finally:
        grader.close()
    if "processes" not in grader.isolation:
        pytest.skip("this machine gives no user namespaces")
    assert grader.isolation == ("processes", "network")
    assert grade.score == 1.0, grade  # ENETUNREACH: not even a route
    until = time.monotonic() + 5
    while time.monotonic() < until:  # the last heartbeat may still be on its way to the disk
        before = beat.stat().st_mtime_ns
        time.sleep(0.1)
        if beat.stat().st_mtime_ns == before:
            break
    else:
        pytest.fail("a process of the grader still runs")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="macOS does not hold the limit")
def test_memory_is_held_process_by_process(tmp_path):
    """What docs/grading.md says, no more: a child gets no more than its parent may have, beside it."""
    source = """
import os

def grade(sample, item):
    child = os.fork()
    if child == 0:
        try:
            bytearray(item["mb"] << 20)
        except MemoryError:
            os._exit(7)
        os._exit(0)
    mine = bytearray(100 << 20)
    return 0.5 if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7 else 1.0
"""
    grader = _grader(tmp_path, source)
    try:
        grades = grader.grade([GradeItem("p", "x", None, {"mb": mb}) for mb in (100, 300)])
    finally:
        grader.close()
    assert [grade.score for grade in grades] == [1.0, 0.5]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the signal of a parent's death is Linux's")
def test_an_endless_loop_ends_with_the_process_that_started_it(tmp_path):
    (tmp_path / "rubric.py").write_text(
        "import time\ndef grade(sample, item):\n    while True: open('beat', 'w').write(str(time.time()))\n"
    )
    code = (
        "import sys; from pathlib import Path; from dlm.grading import *; "
        "g = make_grader('python:rubric.py', folder=Path(sys.argv[1]), limits=Limits(timeout_s=60)); g.grade([GradeItem('p', 'x')])"
    )
    started = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    beat, until = tmp_path / "beat", time.monotonic() + 60
    while not beat.exists() and time.monotonic() < until:
        time.sleep(0.02)
    started.kill()
    started.wait()
    while time.monotonic() < until:
        before = beat.stat().st_mtime_ns
        time.sleep(0.2)
        if beat.stat().st_mtime_ns == before:
            return
    pytest.fail("the grader's process outlived dlm")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def grade(:", "SyntaxError"),
        ("raise RuntimeError('at import')", "at import"),
        ("score = 1", "no function grade"),
        ("import os; os._exit(4)", "ended with 4"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_at_once(tmp_path, source, found):
    grader = _grader(tmp_path, source)
    with pytest.raises(GradingError, match=found):
        grader.grade([_item("x")])
    grader.close()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(GradingError, match="cannot be read: No such file or directory") as caught:
        make_grader("python:none.py", folder=tmp_path)
    assert "write the file" in caught.value.next_step


def test_the_bytes_that_run_are_those_that_were_read(tmp_path):
    grader = _grader(tmp_path, "def grade(sample, item): return 0.5")
    (tmp_path / "rubric.py").write_text("def grade(sample, item): return 1.0")
    try:
        assert [grade.score for grade in grader.grade([_item("x")])] == [0.5]
    finally:
        grader.close()


def test_secrets_of_the_environment_stay_here(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVICE_TOKEN", "secret")
    monkeypatch.setenv("DLM_GRADER_RATE", "0.5")
    grader = _grader(
        tmp_path,
        "import os\ndef grade(sample, item): return 0 if 'SERVICE_TOKEN' in os.environ else float(os.environ['DLM_GRADER_RATE'])",
    )
    try:
        assert grader.grade([_item("x")])[0].score == 0.5
    finally:
        grader.close()


def test_too_many_errors_stop_a_run_with_the_reason(tmp_path):
    grader = _grader(tmp_path, HOSTILE)
    tally = ErrorTally(allowed_share=0.25, at_least=4)
    try:
        tally.add(grader.grade([_item("raise"), _item("fine")]))  # half, of too few
        tally.add(grader.grade([_item("fine"), _item("fine")]))
        with pytest.raises(GradingError, match=r"failed on 2 of 5 answers") as caught:
            tally.add(grader.grade([_item("raise")]))
    finally:
        grader.close()
    assert "RuntimeError: no" in str(caught.value)
    assert (tally.seen, tally.errors) == (5, 2)
