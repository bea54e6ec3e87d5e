"""The rft phase as a run: where it starts, what it keeps, what it refuses, and that it goes on as if it had not stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from dlm.document import load
from dlm.errors import ConsentError, DocumentError, GradingError, InterruptedRunError, UsageError
from dlm.store import Home, Store
from dlm.workflow.measuring import reward_change
from dlm.workflow.rewards import read_rewards
from dlm.workflow.train import TrainOptions, dry_run, train
from watched_runs import BODY, DLM_ID, Watching, adapters, opened

pytestmark = [pytest.mark.torch, pytest.mark.big]
Make = Callable[..., Path]
KNOBS: dict[str, Any] = {
    "save_every_steps": 2, "eval_every_steps": 2, "layout": "plain", "val_fraction": 0.3, "rft.steps": 5,
    "rft.prompts_per_step": 3, "rft.group_size": 4, "rft.max_new_tokens": 10, "rft.learning_rate": 1e-2,
}  # fmt: skip
GRADER = "length:1-12 characters"


def prompts_file(folder: Path, count: int = 24, start: int = 100) -> Path:
    lines = [
        {"prompt": f"What is number {i}?", "reference": f"{i * 7}."} for i in range(start, start + count)
    ]
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def go(document: Path, view: Watching | None = None, /, **options: Any) -> Any:
    given = {"phase": "rft", "knobs": KNOBS, "device": "cpu", **options}
    if "prompts_files" not in given and not given.get("resume"):
        given["prompts_files"] = [document.parent / "prompts.jsonl"]
        given.setdefault("grader", GRADER)
    (report,) = train(document, TrainOptions(**given), view or Watching()).runs
    return report


def events(store: Store, kind: str) -> list[Any]:
    return [event.data for event in store.runs.events(store.runs.list()[-1].id, kind)]


def test_a_run_starts_from_current_and_tells_of_rewards(make_document: Make) -> None:
    document = make_document(body=BODY)
    prompts_file(document.parent)
    train(
        document,
        TrainOptions(phase="sft", knobs={"max_steps": 2, "layout": "plain"}, device="cpu"),
        Watching(),
    )
    report = go(document, view := Watching())
    assert (report.phase, report.method, report.version, report.parent) == ("rft", "grpo", "v0002", "v0001")
    assert (report.promoted, report.steps) == (True, 5)
    assert view.briefings[0].start.value == "v0001"
    assert view.briefings[0].estimate is None
    with opened() as store:
        run = store.runs.list()[-1]
        assert (run.kind, run.method, run.status, run.planned_steps) == ("rft", "grpo", "complete", 5)
        assert run.recipe["rft"]["group_size"] == 4
        series = store.metrics.read(run.id)
        assert series["train_mean_reward"].steps.tolist() == [1, 2, 3, 4, 5]
        assert series["full_valid_mean_reward"].steps.tolist() == [2, 4, 5]
        assert series["probe_loss"].steps.tolist() == [2, 4, 5]  # facts are watched
        before, after = events(store, "held_out")
        assert [one["stage"] for one in (before, after)] == ["start", "version"]
        assert before["rewards"].keys() == after["rewards"].keys()
        assert report.reward == reward_change(before["rewards"], after["rewards"])
        assert report.reward.before.n == series["valid_answers"].values[-1]
        assert report.reward.after.value == pytest.approx(series["full_valid_mean_reward"].values[-1])


@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_stopped_run_goes_on_with_its_prompts_and_grader(make_document: Make, stop_at: int) -> None:
    document = make_document(body=BODY)
    prompts_file(document.parent)
    go(document)
    with pytest.raises(InterruptedRunError):
        go(document, Watching("rft", stop_at))
    with opened() as store:
        assert store.runs.list()[-1].status == "interrupted"
        assert store.versions.current_name() == "v0001"
    report = go(document, resume=True, knobs={})
    assert (report.version, report.steps, report.parent) == ("v0002", 5, "v0001")
    with pytest.raises(InterruptedRunError):
        go(document, Watching("rft", stop_at))
    prompts_file(document.parent, start=200)
    with pytest.raises(UsageError, match=r"the prompts, what is known of their answers, .* changed"):
        go(document, resume=True, knobs={})


def test_bug_12_the_same_weights_as_the_run_that_never_stopped(make_document: Make) -> None:
    document = make_document(body=BODY)
    prompts_file(document.parent)
    go(document)
    expected = adapters()["v0001"]
    other = document.with_name("other.dlm")
    other_id = f"{DLM_ID[:-1]}W"
    other.write_text(document.read_text(encoding="utf-8").replace(DLM_ID, other_id), encoding="utf-8")
    with pytest.raises(InterruptedRunError):
        go(other, Watching("rft", 3), prompts_files=[document.parent / "prompts.jsonl"], grader=GRADER)
    report = go(other, resume=True, knobs={})
    found = Home.open().find(other_id)
    assert found is not None
    with found:
        folder = found.versions.get(report.version).folder
        assert (folder / "adapter_model.safetensors").read_bytes() == expected


def test_prompts_that_versions_are_proven_on_are_refused(make_document: Make) -> None:
    document = make_document(body=BODY)
    path = prompts_file(document.parent)
    path.write_text(path.read_text() + '{"prompt": " Which number is 3? "}\n', encoding="utf-8")
    with pytest.raises(
        UsageError, match="1 of 25 prompts to train on are among the document's probes"
    ) as raised:
        go(document)
    assert raised.value.found.endswith("prompts.jsonl:25")
    with opened() as store:
        assert store.runs.list() == ()


def test_a_broken_grader_stops_before_the_first_step(make_document: Make) -> None:
    document = make_document(body=BODY)
    prompts_file(document.parent)
    (document.parent / "broken.py").write_text(
        "def grade(sample, item):\n    return 1 / 0\n", encoding="utf-8"
    )
    with pytest.raises(GradingError, match="failed on") as raised:
        go(document, grader="python:broken.py", prompts_files=[document.parent / "prompts.jsonl"])
    assert "ZeroDivisionError" in str(raised.value)
    with opened() as store:
        run = store.runs.list()[-1]
        assert run.status == "interrupted"  # it can be mended, and goes on
        assert "the grader failed" in run.message
    (document.parent / "broken.py").write_text(
        "def grade(sample, item):\n    return len(sample) % 7 / 7\n", encoding="utf-8"
    )
    assert go(document, resume=True, knobs={}).steps == 5


def test_alarms_are_told_once_and_kept(make_document: Make) -> None:
    document = make_document(body=BODY)
    prompts_file(document.parent)
    go(document, view := Watching(), knobs={**KNOBS, "rft.steps": 8})
    (cut_off,) = [note for note in view.notes if "cut off by the token budget" in note]
    assert cut_off.startswith("warning: ")
    with opened() as store:
        kept = events(store, "reward_alarm")
        assert [one["kind"] for one in kept].count("cut_off") == 1


def test_a_dry_run_shows_prompts_and_writes_nothing(make_document: Make) -> None:
    document = make_document(body=BODY)
    path = prompts_file(document.parent)
    options = TrainOptions(phase="rft", knobs=KNOBS, prompts_files=[path], grader=GRADER, device="cpu")
    (preview,) = dry_run(document, options, Watching())
    assert preview.briefing.phase == "rft"
    assert [part.role for part in preview.rows[0].parts] == ["prompt"]
    assert not (document.parent / "home").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts_files": []}, "no prompts to sample answers to"),
        ({"grader": None}, "no grader to reward answers with"),
        ({"grader": "taste"}, "no such grader"),
        ({"phase": "sft", "knobs": {}}, "--prompts, --grader: read by the rft phase alone"),
        ({"pairs_files": ["x"]}, "--pairs is not read by the rft phase"),
        ({"knobs": {"num_epochs": 3}}, "num_epochs: only the sft phase reads this"),
        ({"knobs": {"rft.group_size": 1}}, "rft.group_size"),
        ({"knobs": {"preference.beta": 0.2}}, "only the preference phase reads this"),
    ],
)
def test_what_cannot_be_done_is_refused(make_document: Make, options: dict[str, Any], message: str) -> None:
    document = make_document(body=BODY)
    path = prompts_file(document.parent)
    given = {"prompts_files": [path], "grader": GRADER, **options}
    with pytest.raises(UsageError, match=message):
        go(document, **given)


def test_bad_lines_are_listed_with_their_numbers(make_document: Make) -> None:
    document = make_document(body=BODY)
    path = document.parent / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n{"question": "b"}\n{"prompt": "c", "facts": 3}\n', encoding="utf-8")
    with pytest.raises(DocumentError) as raised:
        go(document)
    assert [problem.line for problem in raised.value.problems] == [2, 3]


def test_several_processes_are_refused(make_document: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlm.workflow.followers import Followers

    monkeypatch.setattr(Followers, "count", 1)
    document = make_document(body=BODY)
    prompts_file(document.parent)
    with pytest.raises(UsageError, match="the rft phase runs in one process"):
        go(document)


def test_differences_that_are_all_zero_have_no_interval() -> None:
    change = reward_change({"a": 0.5, "b": None, "c": 0.25}, {"a": 0.5, "b": 1.0, "c": 0.25})
    assert change is not None
    assert (change.before.n, change.change.value, change.change.high) == (2, 0.0, 0.0)
    assert reward_change({}, {}) is None


def test_one_prompt_of_forty_that_came_to_be_answered_right_may_be_chance() -> None:
    """Differences that are each 0 or 1 are no share: a share's interval never holds 0 once there is a hit."""
    before = dict.fromkeys(map(str, range(40)), 0.0)
    change = reward_change(before, {**before, "0": 1.0})
    assert change is not None
    assert change.change.value == 1 / 40
    assert change.change.low == 0


# --- suites of the document ---------------------------------------------------------------------------------------


def with_suites(make_document: Make, *suites: str) -> Path:
    """A document whose suites read one file of cases, 24 to train on and 6 to prove versions on."""
    document = make_document(body=BODY, header="evals:\n" + "".join(f"  {suite}\n" for suite in suites))
    lines = [
        {
            "prompt": f"What is number {i}?",
            "reference": f"{i * 7}.",
            "split": "train" if i < 124 else "heldout",
        }
        for i in range(100, 130)
    ]
    cases = document.parent / "cases.jsonl"
    cases.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return document


def test_a_suite_brings_its_training_cases_grader_and_budget(make_document: Make) -> None:
    document = with_suites(
        make_document,
        f'numbers: {{cases: cases.jsonl, split: heldout, grader: "{GRADER}", max_new_tokens: 9}}',
    )
    knobs = {name: value for name, value in KNOBS.items() if name != "rft.max_new_tokens"}
    report = go(document, view := Watching(), prompts_files=[], knobs=knobs)
    preflight = view.briefings[0].preflight
    assert preflight.rows["train"] + preflight.rows["validation"] == 24
    assert any("answers may have 9 tokens (evals.numbers.max_new_tokens)" in one for one in preflight.notes)
    assert report.reward is not None
    with pytest.raises(InterruptedRunError):
        go(document, Watching("rft", 1), prompts_files=[], suite="numbers", knobs=knobs)
    assert go(document, resume=True, knobs={}).steps == 5


def test_held_out_cases_of_a_suite_are_not_trained_on(make_document: Make) -> None:
    document = with_suites(make_document, "numbers: {cases: cases.jsonl, split: heldout}")
    prompts_file(document.parent, start=120)
    with pytest.raises(
        UsageError, match="6 of 24 prompts to train on are among the cases of the suite numbers"
    ):
        go(document)


@pytest.mark.parametrize(
    ("split", "is_trained_on"),
    [
        ("train", True),
        ("hard_train", True),
        ("constraints", False),
        ("train_check", False),
        ("untrained", False),
    ],
)
def test_which_splits_are_there_to_be_trained_on(
    make_document: Make, split: str, is_trained_on: bool
) -> None:
    document = with_suites(make_document, f"numbers: {{cases: cases.jsonl, split: {split}}}")
    cases = document.parent / "cases.jsonl"
    cases.write_text(cases.read_text(encoding="utf-8").replace("heldout", split), encoding="utf-8")
    path = prompts_file(document.parent, start=124)
    with (
        nullcontext() if is_trained_on else pytest.raises(UsageError, match="the cases of the suite numbers")
    ):
        read_rewards(load(document), document.parent, [path], None, GRADER)


@pytest.mark.parametrize(
    ("suites", "suite", "message"),
    [
        (
            ("a: {cases: cases.jsonl, split: heldout}", "b: {cases: cases.jsonl}"),
            None,
            "2 suites to take prompts",
        ),
        (("a: {cases: cases.jsonl, split: heldout}",), "b", "no suite 'b'"),
        (("a: {cases: cases.jsonl, split: heldout}",), "probes", "the suite probes proves versions"),
    ],
)
def test_which_suite_has_to_be_clear(
    make_document: Make, suites: tuple[str, ...], suite: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        go(with_suites(make_document, *suites), prompts_files=[], suite=suite)


def test_a_grader_in_python_that_the_document_names_asks_first(make_document: Make) -> None:
    document = with_suites(
        make_document, 'numbers: {cases: cases.jsonl, split: heldout, grader: "python:own.py"}'
    )
    (document.parent / "own.py").write_text(
        "def grade(sample, item):\n    return len(sample) % 7 / 7\n", encoding="utf-8"
    )
    asked: list[Any] = []

    def refuse(argv: Any) -> None:
        asked.append(argv)
        raise ConsentError("no")

    with pytest.raises(ConsentError):
        go(document, prompts_files=[], allow=refuse)
    assert asked == [("dlm-grader", "own.py")]
    with opened() as store:
        assert store.runs.list() == ()
    # named on the command line it is allowed by that
    assert go(document, prompts_files=[], grader="python:own.py", allow=refuse).steps == 5
