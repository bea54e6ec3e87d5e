"""Commands as judges: what they may do wrong costs one answer its score, and nothing else."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlm.errors import UsageError
from dlm.judging import Failure, Item, Judge, JudgeContext, make_judge

# Reads one request, or one after another with --stream; `answer(request, call)` is the test's.
_FRAME = """
import json, os, sys, time
def calls():
    with open("calls", "a+") as file:
        file.write(".")
        file.flush()
        return file.tell()
{body}
for line in sys.stdin if "--stream" in sys.argv else [sys.stdin.read()]:
    print(answer(json.loads(line), calls()), flush=True)
"""
MODES = ("cli", "cli-stream")

Make = Callable[..., Judge]


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Make]:
    """Makes a judge from the body of a Python script."""
    made: list[Judge] = []

    def make(mode: str, body: str, timeout_s: float = 30.0) -> Judge:
        (tmp_path / "judge.py").write_text(_FRAME.format(body=body), encoding="utf-8")
        stream = " --stream" if mode == "cli-stream" else ""
        spec = f"{mode}:{shlex.quote(sys.executable)} -S -E judge.py{stream}"
        made.append(make_judge(spec, JudgeContext(timeout_s=timeout_s, folder=tmp_path)))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.close()


def items(*candidates: str) -> list[Item]:
    return [Item("How?", candidate) for candidate in candidates]


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def ends(pid: int) -> bool:
    """Whether a process that was told to end does so."""
    deadline = time.monotonic() + 10
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not runs(pid)


LENGTH = "def answer(r, n): return json.dumps({'score': len(r['candidate']), 'reasoning': r['prompt']})"


@pytest.mark.parametrize("mode", MODES)
def test_scores_and_reasons_in_order(judge: Make, mode: str) -> None:
    verdicts = list(judge(mode, LENGTH).score(items("a", "bcd", "", "zwei\nZeilen ü \u202e \ud800 \0")))
    assert [verdict.score for verdict in verdicts] == [1, 3, 0, 19]
    assert all(verdict.reasoning == "How?" and verdict.attempts == 1 for verdict in verdicts)
    assert all(verdict.seconds > 0 for verdict in verdicts)


@pytest.mark.parametrize("mode", MODES)
def test_each_verdict_comes_before_the_next_call(judge: Make, mode: str, tmp_path: Path) -> None:
    verdicts = judge(mode, LENGTH).score(items("a", "b", "c"))
    next(verdicts)
    assert (tmp_path / "calls").stat().st_size == 1


def expected_failures(count: int) -> list[tuple[bool, tuple[Failure, ...]]]:
    """What becomes of `count` answers when call 5, 10 … crashes, 7, 14 … hangs, and 11, 22 … gives NaN."""
    call, found = 0, []
    for _ in range(count):
        failures: list[Failure] = []
        for _ in range(2):
            call += 1
            kind: Failure | None = None
            if call % 5 == 0:
                kind = "crashed"
            elif call % 7 == 0:
                kind = "timed_out"
            elif call % 11 == 0:
                kind = "non_finite"
            if kind is None:
                break
            failures.append(kind)
        found.append((len(failures) < 2, tuple(failures)))
    return found


FLAKY = """
def answer(r, n):
    if n % 5 == 0: sys.exit("out of luck")
    if n % 7 == 0: time.sleep(600)
    return json.dumps({"score": float("nan") if n % 11 == 0 else len(r["candidate"])})
"""


@pytest.mark.big
@pytest.mark.parametrize("mode", MODES)
def test_a_flaky_command_costs_exactly_what_it_spoils(judge: Make, mode: str, tmp_path: Path) -> None:
    texts = ["x" * n for n in range(30)]
    verdicts = list(judge(mode, FLAKY, timeout_s=1.5).score(items(*texts)))
    assert [(v.score is not None, v.failures) for v in verdicts] == expected_failures(30)
    assert all(v.score in (None, len(text)) for v, text in zip(verdicts, texts, strict=True))
    assert (tmp_path / "calls").stat().st_size == sum(v.attempts for v in verdicts)
    given_up = [v for v in verdicts if v.score is None]
    assert given_up  # calls 14 and 15 belong to one answer
    assert all(v.error for v in given_up)


BAD = {
    "no JSON": ("return 'fine, I think'", "malformed", "not one JSON object"),
    "nothing": ("return ''", "malformed", "printed nothing"),
    "two objects": ('return \'{"score": 1} {"score": 2}\'', "malformed", "not one JSON object"),
    "a list": ("return '[1]'", "malformed", 'no object with a "score"'),
    "no score": ("return '{}'", "malformed", 'no object with a "score"'),
    "a text": ('return \'{"score": "1"}\'', "malformed", "no number"),
    "true": ("return '{\"score\": true}'", "malformed", "no number"),
    "null": ("return '{\"score\": null}'", "malformed", "no number"),
    "odd reasoning": ('return \'{"score": 1, "reasoning": [1]}\'', "malformed", "no text"),
    "NaN": ("return '{\"score\": NaN}'", "non_finite", "not finite"),
    "infinity": ("return '{\"score\": -Infinity}'", "non_finite", "not finite"),
    "overflow": ("return '{\"score\": 1e999}'", "non_finite", "not finite"),
    "huge integer": ("return '{\"score\": 1' + '0' * 400 + '}'", "non_finite", "not finite"),
    "too deep": ("return '[' * 100000", "malformed", "not one JSON object"),
    "not UTF-8": ("sys.stdout.buffer.write(b'\\xff\\n'); return ''", "malformed", "not one JSON object"),
    "too much": ("return ' ' * 3_000_000 + '{\"score\": 1}'", "malformed", "more than 1 MiB"),
    "exit code": ("print('bad key', file=sys.stderr); sys.exit(3)", "crashed", "exit code 3: bad key"),
    "signal": ("os.kill(os.getpid(), 9)", "crashed", "signal 9"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_score_is_tried_twice_and_said(judge: Make, mode: str, case: str, tmp_path: Path) -> None:
    body, kind, said = BAD[case]
    verdicts = list(judge(mode, f"def answer(r, n):\n  {body}\n").score(items("a")))
    assert [verdict.failures for verdict in verdicts] == [(kind, kind)]
    assert said in (verdicts[0].error or "")
    assert (tmp_path / "calls").stat().st_size == 2


def test_a_score_before_a_bad_exit_is_none(judge: Make) -> None:
    body = "def answer(r, n):\n  print('{\"score\": 1}', flush=True)\n  os._exit(1)\n"
    assert [v.failures for v in judge("cli", body).score(items("a"))] == [("crashed", "crashed")]


@pytest.mark.parametrize("mode", MODES)
def test_reasons_can_be_stored_whatever_they_hold(judge: Make, mode: str) -> None:
    body = 'def answer(r, n): return \'{"score": 1, "reasoning": "a\\\\ud800b\\\\u0000c"}\''
    assert [v.reasoning for v in judge(mode, body).score(items("a"))] == ["a?b?c"]


@pytest.mark.big
@pytest.mark.parametrize("mode", MODES)
def test_a_megabyte_in_both_directions_blocks_nobody(judge: Make, mode: str) -> None:
    body = """
def answer(r, n):
    sys.stderr.write("x" * 300_000)
    return json.dumps({"score": len(r["candidate"]), "reasoning": "y" * 900_000})
"""
    verdicts = list(judge(mode, body).score(items("a" * 1_000_000, "b", "c" * 2_000_000)))
    assert [verdict.score for verdict in verdicts] == [1_000_000, 1, 2_000_000]


def test_a_command_need_not_read(tmp_path: Path) -> None:
    judge = make_judge("cli:echo '{\"score\": 2}'", JudgeContext(folder=tmp_path))
    assert [v.score for v in judge.score(items("a" * 1_000_000))] == [2]


@pytest.mark.big
@pytest.mark.parametrize("mode", MODES)
def test_a_timeout_ends_what_the_command_started(judge: Make, mode: str, tmp_path: Path) -> None:
    body = """
import subprocess
def answer(r, n):
    with open("pids", "a") as file: print(subprocess.Popen(["sleep", "600"]).pid, file=file)
    time.sleep(600)
"""
    start = time.monotonic()
    verdicts = list(judge(mode, body, timeout_s=1.0).score(items("a")))
    assert verdicts[0].failures == ("timed_out", "timed_out")
    assert "within 1 s" in (verdicts[0].error or "")
    assert time.monotonic() - start < 20
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert pids
    assert all(ends(pid) for pid in pids)


def test_what_a_command_leaves_running_neither_holds_up_nor_stays(judge: Make, tmp_path: Path) -> None:
    body = """
import subprocess
def answer(r, n):
    with open("pids", "a") as file: print(subprocess.Popen(["sleep", "600"]).pid, file=file)
    return '{"score": 4}'
"""
    start = time.monotonic()
    assert [v.score for v in judge("cli", body).score(items("a"))] == [4]
    assert time.monotonic() - start < 20
    assert ends(int((tmp_path / "pids").read_text()))


def test_a_stream_is_one_process_that_is_started_again_when_it_dies(judge: Make) -> None:
    body = """
def answer(r, n):
    if r["candidate"] == "die": os._exit(0)
    return json.dumps({"score": os.getpid()})
"""
    verdicts = list(judge("cli-stream", body).score(items("a", "b", "die", "c")))
    first, second, third, fourth = (verdict.score for verdict in verdicts)
    assert first == second
    assert third is None
    assert fourth not in (None, first)
    assert verdicts[2].failures == ("crashed", "crashed")
    assert "exit code 0" in (verdicts[2].error or "")


@pytest.mark.parametrize("id_given_back", [True, False])
def test_a_line_too_many_is_never_taken_for_the_next_answer(judge: Make, id_given_back: bool) -> None:
    body = f"""
def answer(r, n):
    kept = {{"id": r["id"]}} if {id_given_back} else {{}}
    line = json.dumps(kept | {{"score": len(r["candidate"])}})
    return line + "\\n" + line if r["candidate"] == "twice" else line
"""
    verdicts = list(judge("cli-stream", body).score(items("a", "twice", "abc", "d")))
    assert [verdict.score for verdict in verdicts] == [1, 5, 3, 1]


def test_a_wrong_id_is_no_answer(judge: Make) -> None:
    body = "def answer(r, n): return json.dumps({'id': 1, 'score': 1})"
    verdicts = list(judge("cli-stream", body).score(items("a", "b")))
    assert [verdict.score for verdict in verdicts] == [1, None]
    assert verdicts[1].failures == ("malformed", "malformed")


def test_a_stream_ends_with_its_judge(judge: Make) -> None:
    made = judge("cli-stream", "def answer(r, n): return json.dumps({'score': os.getpid()})")
    (verdict,) = made.score(items("a"))
    assert runs(int(verdict.score or 0))
    made.close()
    assert ends(int(verdict.score or 0))


@pytest.mark.parametrize("mode", MODES)
def test_the_environment_is_minimal(judge: Make, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_SERVICE_TOKEN", "secret")
    monkeypatch.setenv("DLM_JUDGE_KEY", "mine")
    body = "def answer(r, n): return json.dumps({'score': 1, 'reasoning': json.dumps(dict(os.environ))})"
    (verdict,) = judge(mode, body).score(items("a"))
    seen = json.loads(verdict.reasoning or "")
    assert "OTHER_SERVICE_TOKEN" not in seen
    assert seen["DLM_JUDGE_KEY"] == "mine"
    assert seen["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("spec", "timeout_s"),
    [
        ("cli:no-such-program-anywhere", 1.0),
        ("cli:./judge.py", 1.0),
        ("cli:true", 0.0),
        ("cli:true", float("inf")),
    ],
)
def test_what_can_never_work_is_refused_at_once(spec: str, timeout_s: float, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("not executable", encoding="utf-8")
    with pytest.raises(UsageError):
        make_judge(spec, JudgeContext(timeout_s=timeout_s, folder=tmp_path))
