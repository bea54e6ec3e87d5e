"""The commands of the page that this tool was made after, as they stand there: on ten questions, and on its own one."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from command_line import Cli, ten_questions
from dlm.cli.main import app
from dlm.document import load
from dlm.document.provenance import KEYS

pytestmark = [pytest.mark.torch, pytest.mark.process]

COMMANDS = """
dlm train release-notes.dlm
dlm preference mine release-notes.dlm --samples 4 --max-pairs 8 --apply
dlm train release-notes.dlm --phase preference
dlm preference mine release-notes.dlm --samples 4 --max-pairs 8
dlm preference list release-notes.dlm
dlm preference apply release-notes.dlm
dlm train release-notes.dlm --phase preference --no-mined
dlm metrics release-notes.dlm --run-id 7 --json
dlm show release-notes.dlm --json
dlm train notes.dlm
dlm preference mine notes.dlm --samples 4 --max-pairs 6 --apply
dlm train notes.dlm --phase preference
dlm prompt notes.dlm "Write this week's changelog intro."
""".strip().split("\n")
"""Each once, in the page's order, without the leading `uv run`."""

PAIRS = """
::preference::
### Prompt
How long is the stand-up?
### Chosen
Ten minutes, never more.
### Rejected
It is a meeting that we hold every day, and it can take quite some time, depending on who is there.

::preference::
### Prompt
May I bring my dog?
### Chosen
Yes, if it sleeps under the desk.
### Rejected
Thank you so much for this wonderful question! Dogs are a matter of taste, and there is a lot to be said.
"""
FEW_PASSES = "training:\n  num_epochs: 20\n"
"""A version that has its document by heart says one thing only, and there is nothing to compare."""
IDS = {"release-notes.dlm": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "notes.dlm": "01BX5ZZKBKACTAV9WEVGEMMVS0"}


def arguments(command: str, run_id: int) -> list[str]:
    """The words after `dlm`; the run's number is one that exists."""
    return shlex.split(re.sub(r"--run-id \d+", f"--run-id {run_id}", command))[1:]


def test_on_ten_questions_every_command_succeeds(cli: Cli) -> None:
    for name, dlm_id in IDS.items():
        text = ten_questions(dlm_id).replace("\n---\n", f"\n{FEW_PASSES}---\n", 1) + PAIRS
        (cli.folder / name).write_text(text, encoding="utf-8")
    printed: dict[str, str] = {}
    for command in COMMANDS:
        printed[command] = cli.run(*arguments(command, run_id=3)).stdout
    assert sum(_check_mined_sections(cli.folder / name) for name in IDS) >= 4
    facts = _finished(printed[COMMANDS[7]])
    assert facts["prompts"] == 10
    assert facts["candidates"] == 40
    assert facts["pairs"] + facts["over_limit"] + sum(facts["skipped_prompts"].values()) == 10
    shown = json.loads(printed[COMMANDS[8]])["data"]
    kinds = [run["kind"] for run in shown["runs"]]
    assert kinds == ["sft", "preference", "mine", "preference", "mine", "preference"]
    assert shown["mining"]["run_id"] == 5
    applied = re.findall(r"\d+", printed[COMMANDS[5]].partition(" into ")[0])
    assert shown["mining"]["pairs"]["applied"] == len(applied) >= 1
    assert printed[COMMANDS[-1]].strip()


def _finished(printed: str) -> dict[str, Any]:
    """What the mine run's last event says, from `dlm metrics --json`."""
    events = json.loads(printed)["data"]["events"]
    (facts,) = (event["data"] for event in events if event["kind"] == "mining_finished")
    return dict(facts)


def _check_mined_sections(path: Path) -> int:
    """The document parses, and each mined section has the five fields; how many there are."""
    mined = [section for section in load(path).sections if section.auto_mined]
    for section in mined:
        assert section.provenance is not None
        assert tuple(section.provenance.values) == KEYS["dlm-auto-mined"]
        assert len(section.triples) == 1
    return len(mined)


ONE_QUESTION = (
    "::instruction::\n### Q\nHow should release notes read?\n### A\nShort, factual, and low-drama.\n"
)


def test_on_the_page_s_own_document_every_command_succeeds_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question and no pair: the version has it by heart and says one thing only, so nothing can be mined."""
    monkeypatch.setenv("DLM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    codes: dict[str, int] = {}
    for name in IDS:
        Path(name).write_text(ONE_QUESTION, encoding="utf-8")
        assert _in_process("init", "--adopt", name)[0] == 0
    for command in COMMANDS:
        codes[command], errors = _in_process(*arguments(command, run_id=1))
        assert codes[command] in (0, 2), errors
        if codes[command] == 2:
            assert re.search(r"nothing to|no pairs", errors), errors
            assert "next: dlm " in errors
    assert [codes[command] for command in COMMANDS[:2]] == [0, 0]
    assert codes[COMMANDS[-1]] == 0
    assert Path("notes.dlm").read_text(encoding="utf-8").endswith(ONE_QUESTION)


def _in_process(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, args, prog_name="dlm")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr
