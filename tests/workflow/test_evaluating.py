"""Evaluation runs and gates over a real store, with a base of a few thousand random weights."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from dlm.cli.main import app
from dlm.document import load
from dlm.errors import (
    ConsentError,
    ContextLengthError,
    GateError,
    GradingError,
    InterruptedRunError,
    UsageError,
)
from dlm.evaluation import ReferenceScore
from dlm.grading import Grade, GradeItem
from dlm.grading.grader import not_graded
from dlm.grading.text import TextSimilarity
from dlm.store import EvalResult, Home, Store
from dlm.workflow import evaluation_run, gate_round, gating
from dlm.workflow.evaluating import EvalOptions, EvalReport, ceilings, evaluate
from dlm.workflow.gate_round import GateOptions, Judged, foresee, gate, warn_of_reach
from dlm.workflow.gating import require_pass
from dlm.workflow.instruments import REFERENCES, advise_on_evaluations, reference_scores
from dlm.workflow.prompt import open_policy
from dlm.workflow.train import TrainOptions, train
from killed_evaluation import MOMENTS, evaluate_and_die

pytestmark = pytest.mark.torch

Make = Callable[..., Path]
EVALS = "evals:\n  words:\n    cases: cases.jsonl\n    max_new_tokens: 3\n"
CASES = [{"prompt": f"What is number {n}?", "reference": f"It is {n}."} for n in range(8)]


class View:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.blocks: list[tuple[str, str, int, int]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.notes.append(f"warning: {text}")

    def answered(self, suite: str, version: str, done: int, of: int) -> None:
        self.blocks.append((suite, version, done, of))

    def stopping(self) -> None: ...


@pytest.fixture
def document(make_document: Make) -> Path:
    """A document with one suite of eight cases and no probes."""
    path = make_document(header=EVALS)
    _write_cases(path, CASES)
    return path


def _write_cases(document: Path, cases: Sequence[Any]) -> None:
    text = "".join(json.dumps(case) + "\n" for case in cases)
    (document.parent / "cases.jsonl").write_text(text, encoding="utf-8")


def _opened(document: Path) -> Store:
    store = Home.open().find(load(document).header.dlm_id)
    assert store is not None
    return store


def _results(document: Path, run: int) -> tuple[EvalResult, ...]:
    with _opened(document) as store:
        return store.evaluations.results(run)


def _references(document: Path, run: int) -> list[ReferenceScore]:
    with _opened(document) as store:
        assert len(store.runs.events(run, REFERENCES)) <= 2
        return reference_scores(store, run)


def _evaluate(document: Path, view: View | None = None, **options: Any) -> list[EvalReport]:
    return evaluate(document, EvalOptions(device="cpu", **options), view or View())


def test_every_case_is_answered_graded_and_kept_once(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_run, "BLOCK", 3)
    view = View()
    [report] = _evaluate(document, view)
    assert (report.suite, report.version, report.run_id, report.repeated) == ("words", "base", 1, False)
    assert view.blocks == [("words", "base", done, 8) for done in (3, 6, 8)]
    results = _results(document, 1)
    assert [(one.case_index, one.repeat) for one in results] == [(n, 0) for n in range(8)]
    assert [one.prompt for one in results] == [case["prompt"] for case in CASES]
    assert all(one.n_tokens <= 3 and one.dimensions.keys() == {"text_similarity"} for one in results)
    assert results[0].place.endswith("cases.jsonl:1")
    with _opened(document) as store:
        run = store.runs.get(1)
        series = store.metrics.read(1)
    assert (run.kind, run.status, run.planned_steps) == ("eval", "complete", 8)
    assert list(series["eval/score"].steps) == [3, 6, 8]
    assert series["eval/score"].values[-1] == pytest.approx(report.summary.value("score"))
    [again] = _evaluate(document)
    assert (again.run_id, again.repeated) == (1, True)
    assert again.summary == report.summary
    [anew] = _evaluate(document, again=True)
    assert anew.run_id == 2
    assert [one.output for one in _results(document, 2)] == [one.output for one in results]
    [other] = _evaluate(document, repeats=2, seed=1)
    assert (other.run_id, other.summary.answers, other.settings["temperature"]) == (3, 16, 1.0)
    assert {one.repeat for one in _results(document, 3)} == {0, 1}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_run_again_no_case_is_lost_or_graded_twice(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(evaluation_run, "BLOCK", 6)
    [whole] = _evaluate(document, repeats=2)
    expected = _results(document, whole.run_id)
    assert len(expected) == 16
    monkeypatch.setenv("DLM_HOME", str(tmp_path / "other"))
    assert evaluate_and_die(tmp_path / "other", document, moment, 6) == -9
    kept = _results(document, 1)
    assert len(kept) == {"b": 6, "t": 16}[moment[0]]
    assert len(_references(document, 1)) == (6 if "references" in moment else 0)
    view = View()
    [report] = _evaluate(document, view, repeats=2)
    assert report.run_id == 1
    assert "going on with run 1" in view.notes
    assert [done for *_, done, _ in view.blocks] == ([12, 16] if len(kept) == 6 else [])
    assert _results(document, 1) == expected
    assert report.summary == whole.summary
    assert report.references == whole.references
    assert len(_references(document, 1)) == 8


def test_references_are_read_as_the_models_own_logits_say(document: Path) -> None:
    _write_cases(
        document, [*CASES[:3], {"prompt": "No reference."}, {"prompt": "Why?", "reference": "because " * 400}]
    )
    [report] = _evaluate(document, max_new_tokens=3, allowed_errors=0.5)
    policy, _ = open_policy(document, "base")
    losses, right, whole = [], [], 0
    for case in CASES[:3]:
        prompt, answer = policy.chat.prompt_ids(case["prompt"]), policy.chat.completion_ids(case["reference"])
        with torch.no_grad():
            logits = policy.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double()
        losses += (-logits.log_softmax(-1)[range(len(answer)), answer]).tolist()
        own = (logits.argmax(-1) == torch.tensor(answer)).tolist()
        right += own
        whole += all(own)
    assert report.references is not None
    found = report.references
    assert (found.cases, found.left_out, found.tokens) == (3, 1, len(losses))
    assert found.loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert (found.token_accuracy, found.whole) == (sum(right) / len(right), whole / 3)


def test_a_run_that_read_no_references_can_be_read_and_does_it_later(
    document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(evaluation_run.SuiteRun, "_force_references", lambda self, run: None)
        [before] = _evaluate(document)
    assert before.references is None
    with _opened(document) as store:
        [advice] = advise_on_evaluations(store, load(document), document, None)
    assert not any("given the references" in text for text in advice.evidence)
    [after] = _evaluate(document)
    assert (after.run_id, after.repeated, after.summary) == (1, True, before.summary)
    assert after.references is not None
    with _opened(document) as store:
        [advice] = advise_on_evaluations(store, load(document), document, None)
    assert any("given the references" in text for text in advice.evidence)


def test_a_prompt_that_is_too_long_costs_its_case_alone(document: Path) -> None:
    long = {"prompt": "Why? " * 400, "reference": "Because."}
    _write_cases(document, [long, *CASES])
    with pytest.raises(ContextLengthError, match="1 of 9 prompts are too long") as fault:
        _evaluate(document, allowed_errors=0.1)
    assert str(fault.value.where).endswith("cases.jsonl:1")
    view = View()
    [report] = _evaluate(document, view, allowed_errors=0.2, repeats=2)
    assert report.run_id == 1  # the first try began none
    assert [note for note in view.notes if "1 of 9 prompts are too long" in note]
    assert report.summary.counts["prompt_too_long"] == 1
    assert {report.summary.means[name].n for name in ("score", "pass_rate", "tokens")} == {8}
    first, second, *rest = _results(document, 1)
    assert {(one.case_index, one.error, one.output, one.n_tokens) for one in (first, second)} == {
        (0, "prompt_too_long", "", 0)
    }
    assert "is too long for" in first.message
    assert all(one.error is None for one in rest)
    assert report.references is not None
    assert (report.references.cases, report.references.left_out) == (8, 1)
    [again] = _evaluate(document, allowed_errors=0.2, repeats=2)
    assert (again.repeated, again.summary) == (True, report.summary)
    _write_cases(document, [long])
    [nothing] = _evaluate(document, allowed_errors=1)
    assert dict(nothing.summary.means) == {}


def test_the_ceiling_is_told_before_and_kept_with_the_run(document: Path) -> None:
    view = View()
    [report] = _evaluate(document, view)
    assert report.ceiling is not None
    assert (
        report.ceiling["reachable"] < report.ceiling["cases"] == 8
    )  # three tokens are no sentence for this tokenizer
    assert any("need more than the 3 tokens" in note for note in view.notes)
    assert report.ceiling["counts"]["truncated"] == 8 - report.ceiling["reachable"]
    found = ceilings(document, EvalOptions(device="cpu", max_new_tokens=200), View())["words"]
    assert found is not None
    assert (found.reachable, found.budget, found.summary.value("score")) == (8, 200, 1.0)
    with _opened(document) as store:
        assert len(store.runs.list()) == 1


GRADER = "def grade(sample, item):\n    if '7' in item['prompt'] or {bad}:\n        raise ValueError('no')\n    return 0.5\n"


def test_a_python_grader_needs_consent_and_may_fail_now_and_then(make_document: Make) -> None:
    document = make_document(header=EVALS + "    grader: python:rubric.py\n")
    _write_cases(document, CASES)
    rubric = document.parent / "rubric.py"
    rubric.write_text(GRADER.format(bad="False"))
    asked: list[Sequence[str]] = []

    def refuse(argv: Sequence[str]) -> None:
        asked.append(argv)
        raise ConsentError("no")

    with pytest.raises(ConsentError):
        _evaluate(document, allow=refuse)
    assert asked == [("dlm-grader", "rubric.py")]
    [report] = _evaluate(document, allowed_errors=0.2)
    assert report.summary.counts["grader"] == 1
    assert report.summary.value("score") == 0.5
    assert report.summary.means["score"].n == 7
    rubric.write_text(GRADER.format(bad="True"))
    with pytest.raises(
        GradingError, match="failed on 2 of 2 references"
    ):  # of eight, the first that is too many
        _evaluate(document, allowed_errors=0.2)  # other code: another run; its references are graded first
    with _opened(document) as store:
        assert store.runs.list()[-1].status == "failed"
        assert not store.evaluations.results(store.runs.list()[-1].id)
    with pytest.raises(GradingError, match="failed on 2 of 2 references"):
        ceilings(document, EvalOptions(device="cpu", allowed_errors=0.2), View())
    _write_cases(document, [{"prompt": case["prompt"]} for case in CASES])  # no references
    with pytest.raises(GradingError, match="failed on 2 of 2 answers"):
        _evaluate(document, allowed_errors=0.2)
    with _opened(document) as store:
        failed = store.runs.list()[-1]
        assert (failed.status, failed.message[:18]) == ("failed", "the grader failed ")
        assert len(store.evaluations.results(failed.id)) == 2


def test_a_stop_waits_for_one_answer_to_be_graded_and_not_for_a_block(
    document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grader may take ten seconds for each of 64 answers."""
    graded: list[str] = []
    grade = TextSimilarity.grade

    def slow(self: TextSimilarity, items: Sequence[GradeItem]) -> list[Grade]:
        if items[0].output != items[0].reference:  # and not the gold ceiling
            graded.extend(item.prompt for item in items)
            if len(graded) == 3:
                os.kill(os.getpid(), signal.SIGINT)
        return grade(self, items)

    with monkeypatch.context() as patch:
        patch.setattr(TextSimilarity, "grade", slow)
        with pytest.raises(InterruptedRunError, match="after 0 of 8 answers"):
            _evaluate(document, max_new_tokens=200)
    assert graded == [case["prompt"] for case in CASES[:3]]
    [report] = _evaluate(document, max_new_tokens=200)
    assert (report.run_id, report.summary.answers) == (1, 8)


def test_a_stop_among_the_references_speaks_of_no_answers_that_are_kept(
    document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(self: TextSimilarity, items: Sequence[GradeItem]) -> list[Grade]:
        os.kill(os.getpid(), signal.SIGINT)
        return [not_graded(item, "") for item in items]

    monkeypatch.setattr(TextSimilarity, "grade", stops)
    with pytest.raises(InterruptedRunError, match="before the first answer") as stopped:
        _evaluate(document, allowed_errors=1.0)
    assert "kept" not in str(stopped.value)


def test_what_cannot_be_evaluated(document: Path, make_document: Make) -> None:
    with pytest.raises(UsageError, match="no suite 'other'"):
        _evaluate(document, suites=("other",))
    with pytest.raises(UsageError, match="greedy answers"):
        EvalOptions(repeats=2, temperature=0.0)
    _write_cases(document, [CASES[0], CASES[0]])
    with pytest.raises(UsageError, match="twice"):
        _evaluate(document)
    with pytest.raises(UsageError, match="no suite to evaluate"):
        _evaluate(make_document())


def test_probes_are_a_suite(make_document: Make) -> None:
    document = make_document(body="::instruction::\n### Q !probe\nWhy?\n### A\nBecause.\n")
    [report] = _evaluate(document)
    assert (report.suite, report.grader, report.settings["max_new_tokens"]) == (
        "probes",
        "text_similarity:fuzzy_match",
        256,
    )


def test_candidates_are_the_checkpoints_that_the_curves_propose(make_document: Make) -> None:
    rows = "".join(f"### Q\nWhat is number {n}?\n### A\nIt is {n * 7}.\n" for n in range(24))
    document = make_document(body=f"::instruction::\n{rows}", header=EVALS)
    _write_cases(document, CASES)
    with pytest.raises(UsageError, match="no run has trained"):
        _evaluate(document, candidates=True)
    knobs = {"max_steps": 9, "save_every_steps": 3, "eval_every_steps": 3, "keep_last": 3}
    train(document, TrainOptions(phase="sft", knobs=knobs, device="cpu"), _TrainView())  # type: ignore[arg-type]
    view = View()
    base, *proposed = _evaluate(document, view, candidates=True, versions=("base",))
    assert base.version == "base"
    assert proposed
    with _opened(document) as store:
        for report in proposed:
            version = store.versions.get(report.version)
            assert any(f"{version.name} is step {version.step} of run" in note for note in view.notes)
        assert store.versions.current_name() == "v0001"


def test_advice_needs_an_evaluation(document: Path) -> None:
    none = pytest.raises(UsageError, match="has not been evaluated")
    with Home.open().store(load(document).header.dlm_id) as store, none:
        advise_on_evaluations(store, load(document), document, None)
    _evaluate(document, repeats=2)
    with _opened(document) as store:
        [advice] = advise_on_evaluations(store, load(document), document, None)
    assert (advice.dimension, advice.suite) == ("text_similarity", "words")


# --- gates -------------------------------------------------------------------------------------------------------


def _gated(make_document: Make, *conditions: str) -> Path:
    lines = "".join(f"    - {condition}\n" for condition in conditions)
    document = make_document(
        header=f"{EVALS}gate:\n  conditions:\n{lines}" if lines else f"{EVALS}gate: {{}}\n"
    )
    _write_cases(document, CASES)
    train(document, TrainOptions(phase="sft", knobs={"max_steps": 1}, device="cpu"), _TrainView())  # type: ignore[arg-type]
    return document


class _TrainView(View):
    def briefing(self, briefing: Any) -> None: ...
    def step(self, step: int, total: int, values: Any) -> None: ...
    def checkpoint(self, step: int) -> None: ...


def _ask(document: Path, **options: Any) -> Judged:
    return gate(document, GateOptions(device="cpu", **options), View())


def _promote(document: Path, *more: str) -> Any:
    return CliRunner().invoke(app, ["promote", str(document), "v0001", *more], prog_name="dlm")


def test_a_pass_is_recorded_with_its_lineage_and_promotion_obeys_it(make_document: Make) -> None:
    document = _gated(make_document, "words.score >= 0", "no regression on words.score within 1")
    assert _promote(document).exit_code == 3
    missing = _ask(document, evaluate=False)
    assert (missing.asked.result.verdict, missing.current) == ("missing", False)
    assert "v0001 was not evaluated on words" in missing.asked.result.conditions[0].detail
    refused = _promote(document)
    assert (refused.exit_code, "could not be asked" in refused.output) == (3, True)
    judged = _ask(document)
    assert (judged.asked.result.verdict, judged.gating.baseline_name, judged.current) == (
        "pass",
        "base",
        False,
    )
    with _opened(document) as store:
        record = store.evaluations.verdicts("v0001")[-1]
        runs = [run for run in store.runs.list() if run.kind == "eval"]
        assert [run.parent_version for run in runs] == [None, "v0001"]
        assert record.details["lineage"] == ["v0001"]
        assert record.details["runs"] == {"words": [runs[1].id, runs[0].id]}
        assert require_pass(store, load(document), document, "v0001") == record
    done = _promote(document)
    assert (done.exit_code, "v0001 is current" in done.output) == (0, True)
    with _opened(document) as store:
        assert store.versions.promotions()[-1].reason == "by hand: the gate passed against base"


@pytest.mark.parametrize("budget", ["    max_new_tokens: 3\n", ""])
def test_a_gate_judges_by_answers_that_were_made_as_it_makes_them(make_document: Make, budget: str) -> None:
    """However a version was looked at in between, what counts is greedy, one answer a case, within the suite's budget."""
    document = _gated(make_document, "words.score >= 0")
    document.write_text(document.read_text().replace("    max_new_tokens: 3\n", budget))
    both = ("base", "v0001")
    looks: tuple[dict[str, Any], ...] = (
        {"temperature": 1.5},
        {"temperature": 0.0, "top_p": 0.5},
        {"repeats": 2},
        {"temperature": 1.0, "seed": 1},
        {"max_new_tokens": 2},
    )
    for look in looks:
        _evaluate(document, versions=both, **look)
    missing = _ask(document, evaluate=False)
    assert missing.asked.result.verdict == "missing"
    assert "not evaluated on words as the gate asks: greedy" in missing.asked.result.conditions[0].detail
    assert missing.asked.settings == missing.asked.record.details["settings"] == {"words": None}
    judged = _ask(document)
    runs = judged.asked.runs["words"]
    assert min(run for run in runs if run is not None) > 2 * len(looks)
    for look in looks:
        _evaluate(document, versions=both, again=True, **look)
    again = _ask(document, evaluate=False)
    assert again.asked.runs["words"] == runs
    assert again.asked.result == judged.asked.result
    made = {"temperature": 0, "top_p": 1, "repeats": 1, "seed": 0, "max_new_tokens": 3 if budget else 256}
    assert again.asked.settings == again.asked.record.details["settings"] == {"words": made}
    _evaluate(document, versions=both, max_new_tokens=made["max_new_tokens"])  # the same, said aloud
    assert _ask(document, evaluate=False).asked.runs["words"] == runs


def test_a_gate_that_changed_or_another_current_version_takes_a_pass_back(
    make_document: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = _gated(make_document, "words.score >= 0")
    assert _ask(document).asked.result.verdict == "pass"
    text = document.read_text()
    document.write_text(text.replace("score >= 0", "score >= 0.0"))
    with _opened(document) as store, pytest.raises(GateError, match="changed since"):
        require_pass(store, load(document), document, "v0001")
    document.write_text(text)
    _write_cases(document, CASES[:7])
    with _opened(document) as store, pytest.raises(GateError, match="changed since"):
        require_pass(store, load(document), document, "v0001")
    _write_cases(document, CASES)
    with monkeypatch.context() as later:
        later.setattr(gating, "_RULES", gating._RULES + 1)
        with _opened(document) as store, pytest.raises(GateError, match="rules of judging changed since"):
            require_pass(store, load(document), document, "v0001")
    train(document, TrainOptions(phase="sft", knobs={"max_steps": 1}, device="cpu"), _TrainView())  # type: ignore[arg-type]

    def ask_while_another_is_promoted(judged: Any, store: Store) -> Any:
        store.versions.promote("v0002", "forced")
        return gating.ask_gate(judged, store)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(gate_round, "ask_gate", ask_while_another_is_promoted)
        late = _ask(document, candidate="v0001", promote=True)
    assert (late.asked.result.verdict, late.gating.baseline_name, late.current) == ("pass", "base", False)
    with _opened(document) as store, pytest.raises(GateError, match="v0002 is current now"):
        require_pass(store, load(document), document, "v0001")
    assert _ask(document, candidate="v0001").gating.baseline_name == "v0002"
    runs = len(_opened(document).runs.list())
    with pytest.raises(GateError, match="a pass against base makes nothing current: v0002 is current now"):
        _ask(document, candidate="v0001", baseline="base", promote=True)
    assert len(_opened(document).runs.list()) == runs  # told before anything is answered
    hint = ["gate", str(document), "--candidate", "v0001", "--baseline", "base"]
    told = CliRunner().invoke(app, hint, prog_name="dlm").stdout
    assert "a pass against base, which is not what is current, promotes nothing; dlm gate " in told
    assert "next: dlm promote" not in told
    assert _ask(document, candidate="v0001", promote=True).current


def test_a_failure_keeps_the_version_and_needs_force_and_a_reason(make_document: Make) -> None:
    document = _gated(make_document, "words.tokens <= 0")
    judged = _ask(document, promote=True)
    assert (judged.asked.result.verdict, judged.current) == ("fail", False)
    for more in ((), ("--force",), ("--reason", "x"), ("--force", "--reason", " ")):
        assert _promote(document, *more).exit_code == 3, more
    assert _promote(document, "--force", "--reason", "I looked").exit_code == 0
    with _opened(document) as store:
        assert store.versions.promotions()[-1].reason == "I looked"


def test_a_starving_budget_is_the_gates_fault_and_is_told_before_anyone_trains(make_document: Make) -> None:
    document = _gated(make_document, "words.score >= 0.99", "words.score >= 0")
    view = View()
    warn_of_reach(document, GateOptions(device="cpu"), view)
    [told] = [note for note in view.notes if "no model can meet" in note]
    assert "words.score >= 0.99" in told
    judged = _ask(document)
    assert judged.asked.result.verdict == "unreachable"
    assert [one.status for one in judged.asked.result.conditions] == ["UNREACHABLE", "PASS"]
    assert "no failure of the model" in judged.asked.result.reason


def test_a_baseline_too_weak_to_build_on_is_told_before_anyone_trains(make_document: Make) -> None:
    document = _gated(make_document, "baseline words.score >= 0.9", "baseline words.truncated_share <= 0.5")

    def told() -> list[str]:
        view = View()
        warn_of_reach(document, GateOptions(device="cpu"), view)
        return [note for note in view.notes if "the gate that follows asks" in note]

    assert told() == []  # the base was not evaluated: the gate will see
    _evaluate(document, versions=("base",))
    first, *rest = told()
    assert "'baseline words.score >= 0.9', and base has " in first
    assert len(rest) <= 1
    assert _ask(document).asked.result.conditions[0].status in ("FAIL", "UNREACHABLE")


def test_what_the_baseline_puts_out_of_reach_is_told_before_anyone_trains(make_document: Make) -> None:
    document = _gated(
        make_document,
        "words.score >= base + 0.999",
        "words.score >= base + 0.999 if unreachable words.score >= base",
        "words.tokens <= base",
    )

    def told() -> list[str]:
        view = View()
        warn_of_reach(document, GateOptions(device="cpu"), view)
        return [note for note in view.notes if "no model can meet" in note]

    _evaluate(document, versions=("base",), temperature=1.5)
    assert told() == []  # the base was not evaluated as the gate asks
    assert foresee(document, {}).unevaluated == ("words",)
    _evaluate(document, versions=("base",))
    [only] = told()
    assert "'words.score >= base + 0.999': words.score needs" in only
    assert foresee(document, {}).unevaluated == ()
    judged = _ask(document)
    assert judged.asked.result.conditions[0].status == "UNREACHABLE"
    assert judged.asked.result.conditions[0].detail in only


def test_the_usual_conditions_and_what_cannot_be_asked(make_document: Make) -> None:
    document = _gated(make_document)
    assert [one.text for one in _ask(document).asked.result.conditions] == ["no regression on words.score"]
    with pytest.raises(UsageError, match="compared with itself"):
        _ask(document, candidate="v0001", baseline="v0001")
    document.write_text(document.read_text().replace("gate: {}", 'gate: {conditions: ["other.score >= 0"]}'))
    warn_of_reach(document, GateOptions(device="cpu"), view := View())
    assert ["there is no suite other" in note for note in view.notes] == [True]
    plain = make_document()
    with pytest.raises(UsageError, match="declares no gate"):
        _ask(plain)


def test_train_ends_with_the_gate(make_document: Make) -> None:
    header = EVALS + "gate:\n  conditions:\n    - words.tokens {}\n"
    run = lambda *more: CliRunner().invoke(  # noqa: E731
        app, ["train", str(document), "--max-steps", "1", "--device", "cpu", *more], prog_name="dlm"
    )
    document = make_document(header=header.format(">= 0"))
    _write_cases(document, CASES)
    done = run("--json")
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)["data"]
    assert (data["gate"]["verdict"], data["gate"]["current"]) == ("pass", True)
    document.write_text(document.read_text().replace(">= 0", "<= 0"))
    failed = run()
    assert failed.exit_code == 3, failed.output
    assert "v0002 against v0001: FAIL" in failed.stdout
    assert "--force --reason" in failed.stdout
    assert run("--no-gate").exit_code == 0
    with _opened(document) as store:
        assert store.versions.current_name() == "v0001"
    document.write_text(document.read_text().replace("::instruction::", "::Instruction::"))
    broken = _promote(document)
    assert (broken.exit_code, "has problems" in broken.output) == (3, True)
    document.write_text(document.read_text().replace("::Instruction::", "::instruction::"))
    document.write_text(document.read_text().replace("<= 0", "<> 0"))
    before = run()
    assert before.exit_code == 2
    assert "cannot be read" in before.stderr
    with _opened(document) as store:
        assert len(store.versions.list()) == 3  # nothing was trained for a gate that cannot be asked
