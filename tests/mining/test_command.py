"""`dlm preference mine` in this process: what it prints, its JSON, its exit codes."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from bases_on_the_spot import make_foreign
from dlm.cli.main import app
from dlm.document import load

pytestmark = pytest.mark.torch
MINE = ("--version", "base", "--samples", "3", "--max-new-tokens", "10", "--allow-truncated")
SCHEMA = json.loads(
    (resources.files("dlm.cli") / "schemas" / "preference-mine.json").read_text(encoding="utf-8")
)


def dlm(*args: str, expect: int = 0) -> Result:
    result = CliRunner().invoke(app, args, prog_name="dlm")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == expect, result.output
    return result


def mine(document: Path, *args: str, expect: int = 0) -> Result:
    return dlm("preference", "mine", str(document), *MINE, *args, expect=expect)


def mined_data(document: Path, *args: str) -> dict[str, Any]:
    envelope = json.loads(mine(document, *args, "--json").stdout)
    jsonschema.validate(envelope, SCHEMA, cls=jsonschema.Draft202012Validator)
    return dict(envelope["data"])


def test_dry_run_then_stage_then_again(document: Path) -> None:
    before = document.read_bytes()
    plan = mined_data(document, "--dry-run")["plan"]
    assert (len(plan["questions"]), plan["to_sample"], plan["to_judge"]) == (10, 30, 30)
    text = mine(document, "--dry-run", "--judge", "sway").stdout
    assert "30 answers of base would be sampled and judged" in text
    assert "What is number 0?" in text
    first = mined_data(document, "--threshold", "0.01")
    assert first["run_id"] == 1
    assert first["mined"]["pairs"]
    assert {pair["status"] for pair in first["mined"]["pairs"]} == {"staged"}
    assert first["mined"]["prompts"] == 10
    skipped = sum(first["mined"]["skipped_prompts"].values())
    assert skipped + len(first["mined"]["pairs"]) == 10
    again = mined_data(document, "--threshold", "0.01")
    assert again["mined"]["repeated"]
    assert again["mined"]["pairs"] == first["mined"]["pairs"]
    assert mined_data(document, "--threshold", "0.01", "--dry-run")["plan"]["complete"]
    assert document.read_bytes() == before
    shown = mine(document, "--threshold", "0.01")
    assert "run 1 had mined" in shown.stdout
    assert "dlm preference apply" in shown.stdout
    assert "mined exactly this" in shown.stderr


def test_apply_and_what_the_other_commands_then_see(document: Path) -> None:
    data = mined_data(document, "--threshold", "0.01", "--max-pairs", "2", "--apply")
    assert len(data["mined"]["applied"]["written"]) == 2
    assert data["mined"]["over_limit"] > 0
    assert {pair["status"] for pair in data["mined"]["pairs"]} == {"applied"}
    assert sum(section.auto_mined for section in load(document).sections) == 2
    listed = json.loads(dlm("preference", "list", str(document), "--json").stdout)["data"]
    assert "applied" in json.dumps(listed)
    events = json.loads(dlm("metrics", str(document), "--run-id", "1", "--json").stdout)["data"]["events"]
    finished = next(event["data"] for event in events if event["kind"] == "mining_finished")
    assert finished["pairs"] == 2
    assert finished["skipped_prompts"] == data["mined"]["skipped_prompts"]
    for name in ("prompts", "candidates", "judged", "judge_calls", "judge_seconds", "tokens"):
        assert finished[name] == data["mined"][name]


def test_apply_writes_the_pairs_of_this_run_and_no_others(document: Path) -> None:
    options = ("--threshold", "0.01", "--max-pairs", "3")
    other = [pair["id"] for pair in mined_data(document, *options, "--seed", "7")["mined"]["pairs"]]
    mined = [pair["id"] for pair in mined_data(document, *options)["mined"]["pairs"]]
    assert len(mined) == 3
    for word, pair_id in (("accept", other[0]), ("accept", mined[0]), ("reject", mined[1])):
        dlm("preference", word, str(document), str(pair_id))
    data = mined_data(document, *options, "--apply")["mined"]
    assert data["repeated"]
    assert [pair["id"] for pair in data["applied"]["written"]] == [mined[0], mined[2]]
    assert {pair["id"]: pair["status"] for pair in data["pairs"]} == {
        mined[0]: "applied",
        mined[1]: "rejected",
        mined[2]: "applied",
    }
    assert sum(section.auto_mined for section in load(document).sections) == 2
    after = document.read_bytes()
    again = mined_data(document, *options, "--apply")["mined"]
    assert (again["applied"]["written"], again["applied"]["already"]) == ([], [mined[0], mined[2]])
    assert document.read_bytes() == after


def test_show_and_metrics_tell_of_it(document: Path) -> None:
    schema = json.loads((resources.files("dlm.cli") / "schemas" / "show.json").read_text(encoding="utf-8"))
    dlm("train", str(document), "--phase", "sft", "--max-steps", "1")
    envelope = json.loads(dlm("show", str(document), "--json").stdout)
    assert envelope["data"]["mining"] is None
    data = mined_data(document, "--threshold", "0.01", "--max-pairs", "2", "--apply")["mined"]
    envelope = json.loads(dlm("show", str(document), "--json").stdout)
    jsonschema.validate(envelope, schema, cls=jsonschema.Draft202012Validator)
    found = envelope["data"]["mining"]
    for name in (
        "prompts",
        "candidates",
        "tokens",
        "judged",
        "judge_failed",
        "judge_calls",
        "skipped_prompts",
    ):
        assert found[name] == data[name]
    assert found["pairs"]["applied"] == 2
    assert "run 2 from base with sway: 2 applied" in dlm("show", str(document)).stdout
    told = dlm("metrics", str(document)).stdout
    assert "run 2 (mine) is complete" in told
    assert "2 applied" in told


def test_without_a_pair_the_reasons_stand_there(document: Path) -> None:
    shown = mine(document, "--threshold", "1000").stdout
    assert "mined 0 pairs" in shown
    assert "10 below threshold" in shown
    assert "lower --threshold" in shown
    assert mined_data(document, "--threshold", "1000", "--apply")["mined"]["applied"] is None


def test_what_helps_depends_on_what_was_missing(document: Path) -> None:
    failed = mine(document, "--judge", "cli:false")
    assert "Mend it" in failed.stdout
    assert "got no score" in failed.stdout
    assert "the first: the judge's command ended with exit code 1" in failed.stderr
    same = mine(document, "--temp", "0.0001")
    assert "3 samples, 1 different answer\n" in same.stdout
    assert "--questions FILE" in same.stdout


@pytest.mark.parametrize("judge", ["cli:no-such-program", "hf:no-such-model"])
def test_a_judge_that_is_not_there_is_missed_before_anything_is_sampled(document: Path, judge: str) -> None:
    for extra in ((), ("--dry-run",)):
        result = CliRunner().invoke(
            app, ["preference", "mine", str(document), *MINE, "--judge", judge, *extra]
        )
        assert result.exit_code in (1, 2)
        assert judge.partition(":")[2] in result.stderr
        assert "sampling" not in result.stderr


def test_another_reward_model_in_the_same_folder_judges_anew(document: Path) -> None:
    judge = ("--judge", f"hf:{make_foreign(document.parent / 'model', 'llama')}", "--threshold", "0")
    first = mined_data(document, *judge)
    assert mined_data(document, *judge)["mined"]["repeated"]
    make_foreign(document.parent / "model", "llama", seed=4)
    assert not mined_data(document, *judge, "--dry-run")["plan"]["complete"]
    other = mined_data(document, *judge)
    assert not other["mined"]["repeated"]
    assert other["run_id"] != first["run_id"]


def test_misuse(document: Path) -> None:
    assert "no such judge" in mine(document, "--judge", "guess", expect=2).stderr
    untrained = dlm("preference", "mine", str(document), expect=2)
    assert f"dlm train {document}" in untrained.stderr
    for bad in (
        ("--samples", "1"),
        ("--temp", "0"),
        ("--top-p", "0"),
        ("--threshold", "nan"),
        ("--max-pairs", "0"),
    ):
        mine(document, *bad, expect=2)


def test_a_document_s_command_is_not_run_unasked(document: Path, tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    trace = tmp_path / "ran"
    script.write_text(
        f"import json, pathlib, sys\npathlib.Path({str(trace)!r}).touch()\n"
        "print(json.dumps({'score': len(json.load(sys.stdin)['candidate'])}))\n",
        encoding="utf-8",
    )
    text = document.read_text(encoding="utf-8")
    document.write_text(text.replace("\n---\n", "\njudge: cli:python score.py\n---\n", 1), encoding="utf-8")
    few = tmp_path / "few.txt"
    few.write_text("Why?\n", encoding="utf-8")
    refused = mine(document, "--questions", str(few), expect=1)
    assert "--trust" in refused.stderr
    assert not trace.exists()
    data = mined_data(document, "--questions", str(few), "--trust")
    assert data["judge"] == "cli:python score.py"
    assert data["mined"]["judged"] >= 2
    assert data["mined"]["length"]["spearman"] in (None, pytest.approx(1))
    assert trace.exists()
