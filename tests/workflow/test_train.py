"""`train()` from a document to a version, in this process: what it reports, records, measures and refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from bases_on_the_spot import spec_of
from dlm.cli.main import app
from dlm.document import load
from dlm.errors import DocumentError, TrainingError, UsageError
from dlm.evaluation import Question, answer_all
from dlm.model import completion_logprobs, load_policy
from dlm.store import Home, Run, Store
from dlm.training import data_hash, rows_of_document
from dlm.training.examples import Example, encode, split_rows
from dlm.training.planning import Plan, Sampler
from dlm.workflow.export import export
from dlm.workflow.train import RunReport, TrainOptions
from dlm.workflow.train import train as train_phases

pytestmark = pytest.mark.torch

Make = Callable[..., Path]
DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
TOO_LONG = (
    "### Q\nWhat is long?\n### A\n" + "Very, very long. " * 60 + "\n"
)  # 256 tokens are the base's context


def questions(count: int) -> str:
    return "".join(f"### Q\nWhat is number {i}?\n### A\n{'It is ' * (i % 3)}{i * 7}.\n" for i in range(count))


def probes(count: int) -> str:
    return "".join(f"### Q !probe\nWhich number is {i}?\n### A\nIt is {i * 7}.\n" for i in range(count))


def train(document: Path, options: TrainOptions, view: Any) -> RunReport:
    """A training of one phase."""
    (report,) = train_phases(document, options, view).runs
    return report


def options(**knobs: Any) -> TrainOptions:
    return TrainOptions(knobs={"max_steps": 2, **knobs}, device="cpu")


def store_of_document() -> Store:
    found = Home.open().find(DLM_ID)
    assert found is not None
    return found


def newest_run() -> Run:
    with store_of_document() as store:
        run = store.runs.latest()
    assert run is not None
    return run


@pytest.fixture
def rich(make_document: Make) -> Path:
    """Prose, 26 questions and two probes."""
    return make_document(body=f"Some prose about numbers.\n\n::instruction::\n{questions(26)}{probes(2)}")


# --- what a run leaves behind ------------------------------------------------------------------------------------


def test_the_report_says_what_happened(rich: Path, view: Any) -> None:
    report = train(rich, options(max_steps=5, eval_every_steps=2), view)
    assert (report.run_id, report.version, report.promoted, report.steps) == (1, "v0001", True, 5)
    assert (report.phase, report.method, report.parent, report.skipped) == ("sft", "sft", None, 0)
    assert (report.before, report.accuracy) == ({}, None)
    assert report.elapsed_s > 0
    with store_of_document() as store:
        series = store.metrics.read(1)
        assert store.versions.current() == store.versions.get("v0001")
        assert [move.reason for move in store.versions.promotions()] == [
            "training completed, no gate declared"
        ]
    assert report.smoothed_loss == series["train_loss"].tail_mean(0.1)
    assert report.last == {name: one.values[-1] for name, one in series.items()}
    assert [pair.before.prompt for pair in report.probes] == ["Which number is 0?", "Which number is 1?"]
    assert [pair.after.reference for pair in report.probes] == ["It is 0.", "It is 7."]
    assert view.steps == [1, 2, 3, 4, 5]
    (briefing,) = view.briefings
    assert (briefing.run_id, briefing.resumed_at, briefing.document) == (1, 0, rich)
    assert briefing.sections == {"prose": 1, "instruction": 1, "preference": 0}
    assert briefing.preflight.rows == {"train": 25, "validation": 2, "probes": 2}
    assert briefing.estimate.seconds > 0


def test_the_run_is_recorded_with_all_that_explains_it(rich: Path, view: Any) -> None:
    train(rich, options(lora_r=3, seed=9, layout="plain"), view)
    run, document = newest_run(), load(rich)
    assert (run.kind, run.method, run.status, run.version) == ("sft", "sft", "complete", "v0001")
    assert run.recipe == view.briefings[0].resolved.to_json()
    assert (run.recipe["lora_r"], run.seed, run.planned_steps) == (3, 9, 2)
    assert run.parent_version is None
    assert set(run.libraries) == {"torch", "transformers", "peft", "tokenizers", "safetensors", "numpy"}
    assert run.libraries["torch"] == torch.__version__
    assert run.threads == torch.get_num_threads()
    policy = load_policy(spec_of(rich.parent / "llama"), device="cpu")
    assert (run.base, run.base_fingerprint) == ("./llama", policy.fingerprint)
    assert run.data_hash == data_hash(rows_of_document(document)[0])
    assert run.document_sha256 == document.sha256
    facts = json.loads(run.layout)
    assert (facts["layout"], facts["device"], facts["dtype"]) == ("plain", "cpu", "fp32")
    assert facts["plan"]["total_steps"] == 2
    assert facts["plan"]["rows_per_step"] == 8
    assert facts["origins"] == {"max_steps": "flag", "lora_r": "flag", "seed": "flag", "layout": "flag"}
    assert facts["flags"] == {"max_steps": 2, "lora_r": 3, "seed": 9, "layout": "plain"}
    assert (facts["system_prompt"], facts["rows_files"], facts["pairs_files"], facts["then"]) == (
        None,
        [],
        [],
        [],
    )
    with store_of_document() as store:
        version = store.versions.get("v0001")
    assert (version.run_id, version.step, version.phase, version.parent) == (1, 2, "sft", None)
    assert version.recipe == run.recipe
    assert (version.data_hash, version.base_fingerprint) == (run.data_hash, run.base_fingerprint)


def test_probes_are_recorded_once_a_stage(rich: Path, view: Any) -> None:
    report = train(rich, options(), view)
    with store_of_document() as store:
        events = store.runs.events(report.run_id, "probe_answers")
    assert [event.data["stage"] for event in events] == ["base", "version"]
    told = [answer["answer"] for answer in events[1].data["answers"]]
    assert told == [pair.after.answer for pair in report.probes]


def test_the_document_s_bytes_never_change(rich: Path, view: Any) -> None:
    rich.write_bytes(rich.read_bytes().replace(b"\n", b"\r\n") + b"  \r\n")
    before, changed_at = rich.read_bytes(), rich.stat().st_mtime_ns
    train(rich, options(), view)
    assert (rich.read_bytes(), rich.stat().st_mtime_ns) == (before, changed_at)


# --- bug 15: the metrics are what they say -----------------------------------------------------------------------


def scores(model: Any, examples: list[Example]) -> dict[str, float]:
    """Loss, accuracy and entropy of the targets, one row at a time."""
    rows = [(e.ids[: e.first_target], e.ids[e.first_target :]) for e in examples]
    total = sum(len(completion) for _, completion in rows)
    loss = -sum(float(logp.double().sum()) for logp in completion_logprobs(model, rows))
    right = entropy = 0.0
    for example in examples:
        with torch.no_grad():
            logits = model(torch.tensor([example.ids])).logits[0, example.first_target - 1 : -1]
        targets = torch.tensor(example.ids[example.first_target :])
        right += float((logits.argmax(-1) == targets).sum())
        entropy += float(torch.distributions.Categorical(logits=logits).entropy().sum())
    return {"loss": loss / total, "accuracy": right / total, "entropy": entropy / total}


def test_metrics_are_those_of_the_saved_weights(rich: Path, view: Any) -> None:
    """Bug 15: a step's loss is that of the weights before it, a validation's that of the weights after."""
    report = train(
        rich,
        options(
            max_steps=6,
            save_every_steps=1,
            eval_every_steps=3,
            keep_last=9,
            lora_dropout=0.0,
            layout="packed",
        ),
        view,
    )
    run, spec = newest_run(), spec_of(rich.parent / "llama")
    with store_of_document() as store:
        series = store.metrics.read(run.id)
        checkpoints, version = store.checkpoints(run.id), store.versions.get(report.version).folder
    chat = load_policy(spec, device="cpu").chat
    train_rows, validation_rows, _ = split_rows(rows_of_document(load(rich))[0], run.recipe["val_fraction"])
    trained_on, held_out = (list(encode(rows, chat, 256).examples) for rows in (train_rows, validation_rows))
    sampler = Sampler(Plan(**json.loads(run.layout)["plan"]), run.seed)

    def logged(name: str, step: int) -> float:
        one = series[name]
        return float(one.values[list(one.steps).index(step)])

    for step in (2, 4, 6):
        before = load_policy(spec, checkpoints / f"step-{step - 1:08d}", device="cpu").model
        window = [trained_on[index] for index in sampler.window(step)]
        expected = scores(before, window)
        assert logged("train_loss", step) == pytest.approx(expected["loss"], abs=1e-5)
        assert logged("train_mean_token_accuracy", step) == pytest.approx(expected["accuracy"], abs=1e-9)
        assert logged("entropy", step) == pytest.approx(expected["entropy"], abs=1e-4)
    assert list(series["valid_loss"].steps) == [3, 6]
    for step in (3, 6):
        after = load_policy(spec, checkpoints / f"step-{step:08d}", device="cpu").model
        expected = scores(after, held_out)
        assert logged("valid_loss", step) == pytest.approx(expected["loss"], abs=1e-5)
        assert logged("valid_mean_token_accuracy", step) == pytest.approx(expected["accuracy"], abs=1e-9)
    policy = load_policy(spec, version, device="cpu")
    assert logged("full_valid_loss", 6) == pytest.approx(scores(policy.model, held_out)["loss"], abs=1e-5)
    asked = [Question(pair.after.prompt, pair.after.reference) for pair in report.probes]
    exact = [answer.exact for answer in answer_all(policy, asked)]
    assert logged("probe_exact_match", 6) == sum(exact) / len(exact)
    read = [sum(len(trained_on[i].ids) for i in sampler.window(step)) for step in range(1, 7)]
    assert [float(value) for value in series["num_tokens"].values] == [sum(read[:n]) for n in range(1, 7)]


def test_every_metric_the_field_expects_is_in_the_store(rich: Path, view: Any) -> None:
    train(rich, options(), view)
    with store_of_document() as store:
        names = set(store.metrics.names(1))
    both = {
        f"{part}_{name}"
        for part in ("train", "valid", "full_valid", "probe")
        for name in ("loss", "mean_token_accuracy")
    }
    others = {
        "grad_norm",
        "learning_rate",
        "tokens_per_second",
        "peak_memory_mb",
        "num_tokens",
        "entropy",
        "epoch",
    }
    assert names == both | others | {"probe_exact_match"}


def test_a_probe_answered_exactly_counts(make_document: Make, view: Any) -> None:
    """Over-fitted on the probe's own words: exact match is 1, and the report says that the base could not."""
    body = "::instruction::\n### Q\nHi?\n### A\nYes.\n### Q !probe\nHi?\n### A\nYes.\n"
    report = train(make_document(body=body), options(max_steps=80, learning_rate=0.02), view)
    assert report.last["probe_exact_match"] == 1.0
    assert [(pair.before.exact, pair.after.exact) for pair in report.probes] == [(False, True)]


# --- where rows come from ----------------------------------------------------------------------------------------


def test_rows_files_add_rows(make_document: Make, view: Any, tmp_path: Path) -> None:
    document, extra = make_document(), tmp_path / "rows.jsonl"
    lines = [{"prompt": "Who?", "completion": "We."}, {"text": "Some prose."}]
    extra.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    train(document, TrainOptions(knobs={"max_steps": 1}, rows_files=[extra], device="cpu"), view)
    assert view.briefings[0].preflight.rows["train"] == 8
    assert json.loads(newest_run().layout)["rows_files"] == [str(extra)]
    assert newest_run().data_hash != data_hash(rows_of_document(load(document))[0])


def test_a_bad_rows_file_starts_nothing(make_document: Make, view: Any, tmp_path: Path) -> None:
    document, extra = make_document(), tmp_path / "rows.jsonl"
    with pytest.raises(UsageError, match="rows file"):
        train(document, TrainOptions(rows_files=[extra], device="cpu"), view)
    extra.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\nno\n', encoding="utf-8")
    with pytest.raises(DocumentError) as fault:
        train(document, TrainOptions(rows_files=[extra], device="cpu"), view)
    assert [problem.line for problem in fault.value.problems] == [2, 3]
    with store_of_document() as store:
        assert store.runs.list() == ()


def test_sources_are_prose_and_what_is_no_text_is_named(make_document: Make, view: Any) -> None:
    document = make_document(header="training:\n  sources:\n    - path: notes\n")
    (document.parent / "notes").mkdir()
    (document.parent / "notes" / "a.txt").write_text("The sea is wide.\n", encoding="utf-8")
    (document.parent / "notes" / "b.bin").write_bytes(b"\xff\x00\xfe")
    train(document, options(), view)
    assert view.briefings[0].preflight.rows["train"] == 7
    assert any("source left out" in note and "b.bin" in note for note in view.notes)


def test_25_rows_have_a_validation_split(make_document: Make, view: Any) -> None:
    document = make_document(body=f"::instruction::\n{questions(25)}")
    report = train(document, options(), view)
    flight = view.briefings[0].preflight
    assert flight.rows["validation"] >= 1
    assert flight.rows["train"] + flight.rows["validation"] == 25
    assert "held out by their content" in flight.split_reason
    assert report.last["full_valid_loss"] > 0


def test_rows_that_are_all_alike_are_all_trained_on(make_document: Make, view: Any) -> None:
    document = make_document(body="::instruction::\n" + "### Q\nHi?\n### A\nYes.\n" * 25)
    report = train(document, options(), view)
    flight = view.briefings[0].preflight
    assert (flight.rows["train"], flight.rows["validation"]) == (25, 0)
    assert "all alike" in flight.split_reason
    assert "full_valid_loss" not in report.last


# --- rows that do not fit (bug 2) --------------------------------------------------------------------------------


def test_a_row_that_does_not_fit_is_listed_and_left_out(make_document: Make, view: Any) -> None:
    document = make_document(body=f"::instruction::\n{questions(12)}{TOO_LONG}")
    report = train(document, options(), view)
    assert report.skipped == 1
    (skipped,) = view.briefings[0].preflight.skipped
    line = document.read_text(encoding="utf-8").splitlines().index("What is long?")
    assert skipped.row.place == f"{document}:{line}"
    assert "the limit is 256" in skipped.reason
    with store_of_document() as store:
        (event,) = store.runs.events(1, "skipped_rows")
    assert event.data["rows"] == [{"place": skipped.row.place, "kind": "too_long", "reason": skipped.reason}]


def test_too_many_rows_that_do_not_fit_refuse_the_run(make_document: Make, view: Any) -> None:
    document = make_document(body=f"::instruction::\n{questions(8)}{TOO_LONG}")
    with pytest.raises(TrainingError, match="1 of 9 rows do not fit") as fault:
        train(document, options(), view)
    assert f"{document}:" in fault.value.message
    with store_of_document() as store:
        assert store.runs.list() == ()
    assert view.briefings == []


def test_a_probe_longer_than_the_context_is_left_out_and_the_run_goes_on(
    make_document: Make, view: Any
) -> None:
    long_probe = "### Q !probe\n" + "Why, oh why? " * 80 + "\n### A\nSo.\n"
    document = make_document(body=f"::instruction::\n{questions(12)}{probes(1)}{long_probe}")
    report = train(document, options(), view)
    assert [pair.after.prompt for pair in report.probes] == ["Which number is 0?"]
    assert report.skipped == 1
    assert view.briefings[0].preflight.skipped[0].row.probe


@pytest.mark.parametrize("body", ["", f"::instruction::\n{probes(2)}"])
def test_nothing_to_train_on(make_document: Make, view: Any, body: str) -> None:
    with pytest.raises(UsageError, match="nothing to train on") as fault:
        train(make_document(body=body), options(), view)
    assert fault.value.exit_code == 2
    assert "of them probes" in fault.value.found


# --- the gate ----------------------------------------------------------------------------------------------------


def test_a_declared_gate_keeps_the_version_and_promotes_nothing(make_document: Make, view: Any) -> None:
    document = make_document(header="gate:\n  conditions:\n    - probes >= 1\n")
    report = train(document, options(), view)
    assert (report.version, report.promoted) == ("v0001", False)
    assert any("the document's gate decides" in note for note in view.notes)
    with store_of_document() as store:
        assert store.versions.current_name() is None
        assert store.runs.get(1).status == "complete"
        assert store.versions.verify(store.versions.get("v0001"))
    for refused in ((), ("--force",), ("--reason", "I looked at it.")):
        result = CliRunner().invoke(app, ["promote", str(document), "v0001", *refused], prog_name="dlm")
        assert result.exit_code == 3, result.output
        with store_of_document() as store:
            assert store.versions.current_name() is None
    forced = ["promote", str(document), "v0001", "--force", "--reason", "I looked at it."]
    assert CliRunner().invoke(app, forced, prog_name="dlm").exit_code == 0
    with store_of_document() as store:
        assert store.versions.current_name() == "v0001"
        assert store.versions.promotions()[-1].reason == "I looked at it."


# --- refusals ----------------------------------------------------------------------------------------------------


def test_fp16_is_refused(make_document: Make, view: Any) -> None:
    with pytest.raises(UsageError, match="fp16"):
        train(make_document(), options(precision="fp16"), view)
    with pytest.raises(UsageError, match="fp16"):
        train(make_document(header="training:\n  precision: fp16\n"), options(), view)


def test_named_adapters_are_refused_at_their_line(make_document: Make, view: Any) -> None:
    document = make_document(
        header="training:\n  adapters:\n    tone: {}\n",
        body="::instruction#tone::\n### Q\nHi?\n### A\nYes.\n",
    )
    with pytest.raises(UsageError, match="'tone'") as fault:
        train(document, options(), view)
    line = document.read_text(encoding="utf-8").splitlines().index("::instruction#tone::") + 1
    assert fault.value.where == f"{document}:{line}:1"


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])  # head and embedding one tensor; two
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_head_and_embedding_get_no_adapter(
    make_document: Make, view: Any, architecture: str, target: str
) -> None:
    document = make_document(architecture)
    with pytest.raises(UsageError, match="target_modules") as fault:
        train(document, options(target_modules=["q_proj", target]), view)
    assert target in fault.value.message
    assert "q_proj" in fault.value.expected
    assert target not in fault.value.expected
    with store_of_document() as store:
        assert store.runs.list() == ()


def test_unknown_target_modules_are_refused(make_document: Make, view: Any) -> None:
    with pytest.raises(UsageError, match="target_modules") as fault:
        train(make_document(), options(target_modules=["queries"]), view)
    assert "q_proj" in fault.value.expected


def test_resume_and_fresh_exclude_each_other(make_document: Make, view: Any) -> None:
    with pytest.raises(UsageError, match="exclude"):
        train(make_document(), TrainOptions(resume=True, fresh=True), view)


# --- what is said ------------------------------------------------------------------------------------------------


def test_header_keys_that_are_not_used_yet_are_named(make_document: Make, view: Any) -> None:
    document = make_document(header="judge: sway\nexport: {}\nevals:\n  sheet:\n    task: spreadsheet\n")
    train(document, options(), view)
    # mining reads the judge, evaluation the suites
    assert any(note.endswith("not used by this version of dlm: export") for note in view.notes)


def test_a_second_training_makes_a_second_version(make_document: Make, view: Any) -> None:
    document = make_document()
    first, second = (train(document, options(seed=seed), view) for seed in (1, 2))
    assert (first.version, second.version) == ("v0001", "v0002")
    with store_of_document() as store:
        folders = [version.folder for version in store.versions.list()]
        assert store.versions.current_name() == "v0002"
    one, two = ((folder / "adapter_model.safetensors").read_bytes() for folder in folders)
    assert one != two


def test_the_same_training_gives_the_same_bytes(make_document: Make, view: Any) -> None:
    document, made = make_document(), []
    for _ in range(2):
        train(document, options(lora_dropout=0.3, layout="plain"), view)
        with store_of_document() as store:
            current = store.versions.current()
            assert current is not None
            made.append((current.folder / "adapter_model.safetensors").read_bytes())
        shutil.rmtree(document.parent / "home")
    assert made[0] == made[1]


def test_a_version_is_as_readable_as_the_store(make_document: Make, view: Any, tmp_path: Path) -> None:
    """safetensors writes private files; who may read the store may read its versions."""
    document = make_document()
    train(document, options(), view)
    with store_of_document() as store:
        folder = store.versions.get("v0001").folder
    (folder.parent / "plain").touch()
    usual = (folder.parent / "plain").stat().st_mode & 0o777
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        ("adapter_config.json", "adapter_model.safetensors", "version.json"), usual
    )
    for name, merged in (("adapter", False), ("whole", True)):
        export(document, tmp_path / name, merged=merged)
        modes = {path.stat().st_mode & 0o777 for path in (tmp_path / name).iterdir() if path.is_file()}
        assert modes == {usual}, name
