"""`dlm diagnose`: of documents and of files, as text, as JSON and as a page; one run and several."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from dlm.cli.training_report import _items_of_curves
from dlm.curves import Thresholds, diagnose, select
from dlm.store import Home, RunSpec
from dlm.workflow.run_curves import curve_run, verdict_data

from .conftest import DLM_ID, HEADER, Dlm, Train
from .openai_files import (
    dumps,
    rft_checkpoints,
    rft_results,
    sft_checkpoints,
    sft_results,
)
from .test_schemas import SCHEMAS, validate

import jsonschema  # isort: skip

if TYPE_CHECKING:
    from dlm.workflow.views import RunReport

RECORDED = Path(__file__).parents[1] / "curves" / "recorded"


@pytest.fixture
def results() -> Path:
    path = Path("results.csv")
    path.write_text(sft_results(), encoding="utf-8")
    return path


def overfitting_run(document: Path, *, status: str = "complete", kind: str = "sft") -> int:
    """A run in the store whose validation loss turns at step 30."""
    with Home.open().store(DLM_ID) as store, store.lock("dlm train notes.dlm"):
        store.attach(document)
        run = store.runs.start(RunSpec(kind, "sft", {}, base="pocket", planned_steps=100))
        with store.metrics.writer(run.id) as writer:
            for step in range(1, 101):
                writer.log(step, {"train_loss": 3 * 0.96**step, "learning_rate": 1e-3 * (1 - step / 101)})
                if step % 5 == 0:
                    writer.log(step, {"valid_loss": 1 + abs(step - 30) * 0.02})
        folder = store.checkpoints(run.id) / "step-00000025"
        folder.mkdir()
        store.remember_checkpoints(run.id, [25])
        if status != "running":
            store.runs.finish(run.id, status)
    return run.id


# --- one run -----------------------------------------------------------------------------------------------------


def test_the_verdict_comes_first_then_what_to_keep(dlm: Dlm, document: Path) -> None:
    overfitting_run(document, status="failed")
    lines = dlm("diagnose", "notes.dlm").stdout.splitlines()
    assert lines[0] == "run 1 of notes.dlm (sft), 100 of 100 steps"
    assert lines[1].split()[:2] == ["verdict", "overfit:"]
    assert lines[2].split()[:3] == ["keep", "step", "30,"]
    assert "the checkpoint before it is step 25: dlm promote notes.dlm --run-id 1 --step 25" in lines[2]
    assert len(lines) < 40


def test_findings_carry_evidence_and_what_to_do(dlm: Dlm, results: Path) -> None:
    text = dlm("diagnose", "results.csv").stdout
    finding = text[text.index("  severe ") :]
    assert "[overfit_alarm]" in finding
    assert "valid_loss: 0.9 at step 60" in finding
    assert "→ use the checkpoint from about step 60" in finding
    assert "^ 60" in text  # marked under the plot
    assert all(ord(sign) < 128 for line in text.splitlines() if "|" in line for sign in line)  # no terminal


def test_json_fits_its_schema_and_names_its_source(dlm: Dlm, document: Path, results: Path) -> None:
    overfitting_run(document)
    data = validate(dlm.json("diagnose", "notes.dlm", "results.csv"))
    ours, theirs = data["runs"]
    assert (ours["source"], ours["run_id"], ours["planned_steps"]) == ("notes.dlm", 1, 100)
    assert (theirs["source"], theirs["run_id"], theirs["version"]) == ("results.csv", None, None)
    assert {finding["rule"] for finding in theirs["findings"]} >= {"overfit_alarm", "overfit_ratio"}
    assert theirs["finals"]["train_loss"]["last"] == round(1.8 * 0.97**120, 5)
    assert [point["band"] for point in theirs["ratios"]][-1] == "severe"
    assert theirs["series"]["valid_loss"] == {"unit": "nats", "points": 12}
    assert data["thresholds"] == Thresholds().model_dump()


def test_a_run_that_is_not_finite_is_a_finding(dlm: Dlm) -> None:
    rows = [{"step": step, "train_loss": 2.0 / step if step < 15 else math.nan} for step in range(1, 20)]
    Path("run.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (run,) = validate(dlm.json("diagnose", "run.jsonl"))["runs"]
    assert run["findings"][0]["rule"] == "non_finite"
    assert run["finals"]["train_loss"]["last"] in ("NaN", pytest.approx(2 / 14))


@pytest.mark.parametrize("made", ["interrupted", "a reward model"])
def test_without_a_version_that_answers_evals_names_a_command_that_moves_on(
    dlm: Dlm, document: Path, results: Path, train: Train, made: str
) -> None:
    """Not the one that was just typed."""
    if made == "interrupted":
        train(status="interrupted")
    else:
        assert train(kind="reward", promote=False) == "v0001"
    for source, named in ((document, str(document)), (results, "DOCUMENT")):
        said = dlm("diagnose", str(source), "--evals", expect=2).stderr
        assert "no run that was read made one" in said
        assert f"dlm eval {named} --version base --repeats 8 --why" in " ".join(said.split())


def test_without_a_version_of_the_newest_run_evals_names_the_current_one(
    dlm: Dlm, document: Path, train: Train
) -> None:
    assert train() == "v0001"
    train(status="interrupted")
    said = dlm("diagnose", str(document), "--evals", expect=2).stderr
    assert f"dlm eval {document} --version v0001 --repeats 8 --why" in " ".join(said.split())


def test_a_running_run_is_judged_as_far_as_it_is(dlm: Dlm, document: Path) -> None:
    with Home.open().store(DLM_ID) as store, store.lock("dlm train notes.dlm"):
        store.attach(document)
        run = store.runs.start(RunSpec("sft", "sft", planned_steps=1000))
        with store.metrics.writer(run.id) as writer:
            for step in range(1, 31):
                writer.log(step, {"train_loss": 3 * 0.99**step})
        result = dlm("diagnose", "notes.dlm")
        assert "30 of 1000 steps, still running" in result.stdout
        assert "still running: rules about its end have not spoken" in result.stderr
        assert validate(dlm.json("diagnose", "notes.dlm"))["runs"][0]["running"] is True


def test_the_newest_training_is_read_and_mining_is_passed_over(
    dlm: Dlm, document: Path, train: Train
) -> None:
    overfitting_run(document)
    with Home.open().store(DLM_ID) as store, store.lock("mine"):
        store.runs.finish(store.runs.start(RunSpec("mine")).id, "complete")
    assert dlm("diagnose", "notes.dlm").stdout.startswith("run 1 of notes.dlm")


# --- several -----------------------------------------------------------------------------------------------------


def test_runs_and_files_stand_side_by_side(dlm: Dlm, document: Path, results: Path) -> None:
    overfitting_run(document)
    overfitting_run(document)
    lines = dlm("diagnose", "notes.dlm", "results.csv", "--run-id", "1", "--run-id", "2").stdout.splitlines()
    assert lines[0].split()[:3] == ["run", "kind", "steps"]
    assert [line[:20].strip() for line in lines[1:4]] == [
        "a  run 1 of notes.dl",
        "b  run 2 of notes.dl",
        "c  results.csv",
    ]
    assert sum(line.startswith(("a  run", "b  run", "c  results")) for line in lines) == 6  # and one by one
    assert any("a valid_loss" in line and "c valid_loss" in line for line in lines)


def test_files_of_one_name_are_told_apart_by_their_folders(dlm: Dlm, results: Path) -> None:
    Path("other").mkdir()
    results.with_name("other").joinpath("results.csv").write_text(sft_results(), encoding="utf-8")
    text = dlm("diagnose", "results.csv", "other/results.csv").stdout
    assert "other/results.csv" in text


# --- thresholds --------------------------------------------------------------------------------------------------


def test_a_threshold_moves_a_verdict(dlm: Dlm, results: Path) -> None:
    def rules(*args: str) -> set[str]:
        (run,) = validate(dlm.json("diagnose", "results.csv", *args))["runs"]
        return {finding["rule"] for finding in run["findings"]}

    assert "overfit_alarm" in rules()
    assert "overfit_alarm" not in rules("--threshold", "overfit_alarm=3")


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("overfit_alrm=2", "--threshold overfit_alarm=2"),
        ("overfit_alarm", "for example: --threshold"),
        ("overfit_alarm=", "for example: --threshold"),
        ("overfit_alarm=abc", "the threshold overfit_alarm"),
        ("overfit_alarm=0.5", "final over best validation loss"),
        ("overfit_alarm=nan", "the threshold overfit_alarm"),
        ("grad_spikes=1.5", "the threshold grad_spikes"),
    ],
)
def test_a_threshold_that_cannot_be_is_misuse(dlm: Dlm, results: Path, assignment: str, said: str) -> None:
    assert said in dlm("diagnose", "results.csv", "--threshold", assignment, expect=2).stderr


def test_a_threshold_named_twice_is_misuse(dlm: Dlm, results: Path) -> None:
    args = ("--threshold", "overfit_alarm=2", "--threshold", "overfit_alarm=3")
    assert "two values" in dlm("diagnose", "results.csv", *args, expect=2).stderr


# --- what cannot be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("missing.csv", None, 1),
        ("empty.csv", b"", 1),
        ("prose.txt", b"Dear diary,\nnothing to see.\n", 1),
        ("broken.json", b'{"object": "list", "data": [', 1),
        ("missing.dlm", None, 2),
    ],
)
def test_what_cannot_be_read_is_said_with_its_name(
    dlm: Dlm, name: str, content: bytes | None, code: int
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    for command in ("diagnose", "checkpoints"):
        result = dlm(command, name, expect=code)
        assert name in result.stderr
        assert "Traceback" not in result.stderr
        assert result.stdout == ""
        envelope = dlm.json(command, name, expect=code)
        jsonschema.validate(envelope, SCHEMAS["error"], cls=jsonschema.Draft202012Validator)


def test_runs_are_named_of_one_document(dlm: Dlm, document: Path, results: Path) -> None:
    Path("b.dlm").write_text(HEADER, encoding="utf-8")
    assert "one document" in dlm("diagnose", "results.csv", "--run-id", "1", expect=2).stderr
    assert "one document" in dlm("diagnose", "notes.dlm", "b.dlm", "--run-id", "1", expect=2).stderr
    assert "of a document" in dlm("checkpoints", "results.csv", "--run-id", "1", expect=2).stderr


# --- the page ----------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What stands in a page: tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_is_one_file_that_asks_for_nothing(dlm: Dlm, results: Path) -> None:
    assert "report: report.html" in dlm("diagnose", "results.csv", "--html", "report.html").stdout
    text = Path("report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []  # well-formed
    assert not page.all("script") + page.all("link") + page.all("img") + page.all("iframe")
    assert not re.search(r"https?:|url\(|@import", text)
    assert any("default-src 'none'" in str(one.get("content")) for one in page.all("meta"))
    assert "prefers-color-scheme: dark" in text


def test_every_chart_of_the_page_is_told_in_words_and_numbers(dlm: Dlm, results: Path) -> None:
    dlm("diagnose", "results.csv", "--html", "report.html")
    page = Page(Path("report.html").read_text(encoding="utf-8"))
    charts = page.all("svg")
    assert len(charts) == len(page.all("figcaption")) == len(page.all("table")) == 2
    assert all(chart["role"] == "img" and "lowest" in str(chart["aria-label"]) for chart in charts)
    assert "overfit" in page.text
    assert re.search(r"\d severe", page.text)  # the band of a validation, in the table
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1


def test_a_page_of_several_runs_compares_them(dlm: Dlm) -> None:
    dlm("diagnose", *(str(path) for path in sorted(RECORDED.glob("*.jsonl"))), "--html", "report.html")
    page = Page(Path("report.html").read_text(encoding="utf-8"))
    assert "Side by side" in page.text
    assert len(page.all("section")) == 5
    assert [one["aria-labelledby"] for one in page.all("section")[1:]] == [f"run-{i}" for i in range(4)]


def test_a_stranger_s_names_are_no_markup(dlm: Dlm) -> None:
    evil = "<img src=x onerror=alert(1)>\x1b[31m"
    Path("run.jsonl").write_text(
        "".join(json.dumps({"step": i, "train_loss": 1 / i, evil: i}) + "\n" for i in range(1, 30)),
        encoding="utf-8",
    )
    assert "\x1b" not in dlm("diagnose", "run.jsonl", "--html", "report.html").stdout
    page = Page(Path("report.html").read_text(encoding="utf-8"))
    assert not page.all("img")
    assert "\x1b" not in page.text


def test_the_page_overwrites_nothing_it_reads(dlm: Dlm, results: Path) -> None:
    before = results.read_bytes()
    assert "overwrite" in dlm("diagnose", "results.csv", "--html", "results.csv", expect=2).stderr
    assert results.read_bytes() == before
    assert "cannot be written" in dlm("diagnose", "results.csv", "--html", "no/folder.html", expect=1).stderr


# --- the questions of the page on files in OpenAI's formats --------------------------------------------------------


def test_best_checkpoint_and_overfit_alarm_of_a_list_of_checkpoints(dlm: Dlm) -> None:
    listed = sft_checkpoints()
    Path("checkpoints.json").write_text(dumps(listed), encoding="utf-8")
    by_step = sorted(listed["data"], key=lambda one: one["step_number"])
    best = min(by_step, key=lambda one: one["metrics"]["valid_loss"])
    (run,) = validate(dlm.json("diagnose", "checkpoints.json"))["runs"]
    chosen = run["selection"]["candidates"][0]
    assert (chosen["step"], chosen["saved_step"]) == (best["step_number"], best["step_number"])
    assert (chosen["checkpoint"], chosen["model"]) == (best["id"], best["fine_tuned_model_checkpoint"])
    text = dlm("checkpoints", "checkpoints.json").stdout
    assert f"recommended: step {best['step_number']}" in text
    assert best["fine_tuned_model_checkpoint"] in text


def test_the_alarm_speaks_of_the_last_over_the_best_whatever_the_order_of_the_list(dlm: Dlm) -> None:
    (Path("results.csv")).write_text(sft_results(), encoding="utf-8")
    (run,) = validate(dlm.json("diagnose", "results.csv"))["runs"]
    alarm = next(one for one in run["findings"] if one["rule"] == "overfit_alarm")
    assert alarm["severity"] == "severe"
    assert (alarm["evidence"][0]["steps"][0], alarm["evidence"][0]["values"][0]) == (60, 0.9)
    assert "best 0.9" in alarm["evidence"][0]["text"]
    assert "no checkpoints; 12 validations" in dlm("checkpoints", "results.csv").stdout


def test_the_listing_of_a_reinforcement_job(dlm: Dlm) -> None:
    Path("checkpoints.json").write_text(dumps(rft_checkpoints()), encoding="utf-8")
    lines = dlm("checkpoints", "checkpoints.json").stdout.splitlines()
    assert lines[1].split() == [
        "step",
        "train_mean_reward",
        "full_valid_mean_reward",
        "completion_tokens_mean",
        "mark",
    ]
    assert lines[2].split() == ["10", "0.25", "–", "101.2"]
    assert lines[4].split()[:4] == ["30", "0.56", "0.52", "163.9"]
    assert "peak validation reward" in lines[4]
    assert lines[6].startswith("to try: step 30,")
    assert sum("ft:model:org::abc:ckpt-step-" in line for line in lines) >= 2  # never one number


def test_a_list_of_checkpoints_goes_through_unchanged(dlm: Dlm) -> None:
    for listed in (sft_checkpoints(), rft_checkpoints()):
        Path("checkpoints.json").write_text(dumps(listed), encoding="utf-8")
        found = json.loads(dlm("checkpoints", "checkpoints.json", "--json").stdout)
        for item in listed["data"]:
            item["metrics"] = {name: x for name, x in item["metrics"].items() if x is not None}
        assert found == listed


def test_a_reinforcement_job_s_results(dlm: Dlm) -> None:
    Path("rft.csv").write_text(rft_results(), encoding="utf-8")
    (run,) = validate(dlm.json("diagnose", "rft.csv"))["runs"]
    assert run["kind"] == "rft"
    found = {one["rule"]: one["severity"] for one in run["findings"]}
    assert found["reward_gap"] == "severe"
    assert {"answers_grow", "grader_errors"} <= found.keys()
    text = dlm("diagnose", "rft.csv").stdout
    assert "  try " in text
    assert "keep" not in text.split("\n")[2]


# --- a run that is not what it is called -----------------------------------------------------------------------------


def test_the_contradictions_of_a_dpo_run_are_named(dlm: Dlm) -> None:
    """As on the page of the Fine-tune view: called DPO, begins near 2.0, 2,145 steps logged of 1,938 planned."""
    facts = {
        "method": "dpo",
        "planned_steps": 1938,
        "steps": 2145,
        "final_loss": 0.4665,
        "final_token_accuracy": 0.873,
    }
    rows = []
    for number in range(2145):
        step = number + 1 if number < 1100 else number - 206  # the log was appended to on resume
        rows.append(
            {
                "step": step,
                "loss": round(0.06 + 1.95 * math.exp(-step / 90) + 0.01 * ((number * 7) % 5), 5),
                "token_accuracy": round(0.75 - 0.25 * math.exp(-step / 200), 5),
                "grad_norm": 1.0,
                "learning_rate": 2e-4 * (1 - min(step, 1938) / 1939),
            }
        )
    lines = [json.dumps(facts), *(json.dumps(row) for row in rows)]
    Path("dpo.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (run,) = validate(dlm.json("diagnose", "dpo.jsonl"))["runs"]
    found = {one["rule"] for one in run["findings"]}
    assert {
        "first_loss_not_ln2",
        "more_steps_than_planned",
        "steps_logged_twice",
        "stated_final_differs",
    } <= found
    assert run["logged_rows"] == 2145
    text = dlm("diagnose", "dpo.jsonl").stdout
    for said in ("ln 2", "1,938", "2,145", "0.4665"):
        assert said in text


# --- where a training tells it ------------------------------------------------------------------------------------


def test_show_repeats_the_verdict_of_the_newest_training(dlm: Dlm, document: Path) -> None:
    run_id = overfitting_run(document)
    assert "curves" not in dlm("show", "notes.dlm").stdout  # a run of an older dlm has none
    with Home.open().store(DLM_ID) as store:
        run = curve_run(store, store.runs.get(run_id))
        store.runs.event(run_id, "diagnosis", verdict_data(diagnose(run), select(run)))
    text = dlm("show", "notes.dlm").stdout
    assert "curves   run 1: overfit: " in text
    assert "dlm diagnose notes.dlm --run-id 1 says why" in text
    verdict = validate(dlm.json("show", "notes.dlm"))["runs"][0]["verdict"]
    assert (verdict["level"], verdict["best_step"], verdict["saved_step"]) == ("severe", 30, 25)


def test_the_summary_of_a_training_names_the_checkpoint_that_is_better_kept(dlm: Dlm, document: Path) -> None:
    run_id = overfitting_run(document)
    with Home.open().store(DLM_ID) as store:
        run = curve_run(store, store.runs.get(run_id))
    report = SimpleNamespace(
        phase="sft",
        run_id=run_id,
        version="v0001",
        steps=100,
        curves=run,
        diagnosis=diagnose(run),
        selection=select(run),
    )
    items = _items_of_curves(document, cast("RunReport", report))
    assert items["curves"].startswith("overfit: ")
    assert "dlm promote notes.dlm --run-id 1 --step 25" in items["better kept"]
    report.steps = 30  # the version is that step
    assert list(_items_of_curves(document, cast("RunReport", report))) == ["curves"]


def test_epochs_are_told_for_a_file_that_does_not(dlm: Dlm, results: Path, document: Path) -> None:
    assert "--epochs N" in str(dlm.json("diagnose", "results.csv")["data"]["runs"][0]["undecided"])
    told = dlm.json("diagnose", "results.csv", "--epochs", "3")["data"]["runs"][0]
    assert "nobody says how many steps" not in str(told["undecided"])
    assert "about files" in dlm("diagnose", "notes.dlm", "--epochs", "3", expect=2).stderr
    state = {
        "log_history": [{"step": step, "loss": 2 - step / 50, "epoch": step / 10} for step in range(1, 31)]
    }
    Path("trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    [warning] = dlm.json("diagnose", "trainer_state.json", "--epochs", "7")["warnings"]
    assert warning == "--epochs 7 is not used for trainer_state.json: it tells its epochs itself"
    assert dlm.json("diagnose", "results.csv", "--epochs", "3")["warnings"] == []


def test_bands_out_of_order_are_refused(dlm: Dlm, results: Path) -> None:
    refused = dlm("diagnose", "results.csv", "--threshold", "ratio_mild=3", expect=2).stderr
    assert "ratio_mild=3, ratio_moderate=1.5" in refused
    assert "finite" in dlm("diagnose", "results.csv", "--threshold", "sureness=inf", expect=2).stderr
