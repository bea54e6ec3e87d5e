"""One invocation of mining: document and version → a mine run → staged pairs, and with `apply` sections in the document.

This is where rooms meet: the document gives questions and anchors, the store the lock, the run and what an earlier
process had done, the model room the version, judging the judge, review writes the sections.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from dlm.bases import BaseSpec, resolve_base
from dlm.document import Document, load
from dlm.errors import TrainingError, UsageError
from dlm.evaluation import read_suite
from dlm.grading import Case, read_cases, task_cases
from dlm.judging import Anchor, JudgeContext, JudgeSpec, check_judge, make_judge, parse_judge
from dlm.mining import (
    STARTED,
    Job,
    MineResult,
    MineSettings,
    MineView,
    Question,
    content_hash,
    hand_written_answers,
    mine,
    probes_of,
    questions_of_document,
    questions_of_file,
    result_of,
)
from dlm.model import Policy, choose_device, load_policy
from dlm.recipe import Choice
from dlm.review import ApplyReport, apply
from dlm.store import Home, Run, RunSpec, Store, Version, identify, pair_key
from dlm.workflow.interrupt import stop_on_signals
from dlm.workflow.libraries import library_versions
from dlm.workflow.prompt import BASE, pick_version

__all__ = ["MineOptions", "MinePreview", "MineReport", "MiningView", "dry_run", "mine_pairs"]


class MiningView(MineView, Protocol):
    """Who shows a mine run to a person, and can be told that it stops."""

    def stopping(self) -> None:
        """A stop was asked for. Called from a signal handler: no locks, no buffered streams."""


@dataclass(frozen=True)
class MineOptions:
    """What the caller asks for beyond the document.

    Attributes:
        settings: of sampling and pairing.
        judge: a judge's spec; None takes the document's, else sway.
        judge_timeout_s: how long a command may take for one answer.
        questions_file: ask these instead of the document's own.
        version: the version to sample, or "base"; None is the current one.
        apply: write the pairs into the document at once.
        allow: called with the arguments of a command that the document names, before it is run for the first time; it
            raises when it may not run.
    """

    settings: MineSettings = field(default_factory=MineSettings)
    judge: str | None = None
    judge_timeout_s: float = 30.0
    questions_file: Path | None = None
    version: str | None = None
    apply: bool = False
    device: str = "auto"
    allow: Callable[[Sequence[str]], None] = lambda argv: None


@dataclass(frozen=True)
class MineReport:
    """What an invocation did. `applied` is None unless it was asked for and there was a pair to apply."""

    version: Choice[str]
    result: MineResult
    repeated: bool  # the same had been mined before, and nothing was done again
    applied: ApplyReport | None


@dataclass(frozen=True)
class MinePreview:
    """What an invocation would do. `sampled` and `judged` count what an earlier process has done of it already."""

    version: Choice[str]
    judge: str
    questions: Sequence[Question]
    samples: int
    sampled: int
    judged: int
    run_id: int | None  # the run that would go on, or whose pairs are there already
    complete: bool


@dataclass(frozen=True)
class _Plan:
    """An invocation, settled before anything heavy is loaded."""

    document: Document
    path: Path
    options: MineOptions
    spec: BaseSpec
    picked: Choice[Version | None]
    judge: JudgeSpec
    judge_folder: Path
    questions: Sequence[Question]

    @property
    def version_name(self) -> str:
        return BASE if self.picked.value is None else self.picked.value.name

    def facts(self) -> dict[str, Any]:
        """Everything that decides what is mined, beside the version: two runs with the same facts mine the same."""
        argv = self.judge.argv
        return {
            **self.options.settings.to_json(),
            "judge": self.judge.text,
            "judge_command": identify(argv, self.judge_folder).key if argv else "",
            "judge_model": _model_of(self.judge, self.judge_folder),
            "questions": content_hash(self.questions, self.document.header.system_prompt),
            "anchors": _hash(sorted(hand_written_answers(self.document))),
        }


def mine_pairs(path: Path, options: MineOptions, view: MiningView) -> MineReport:
    """Mine pairs of a document's version, and stage them; with `options.apply` write them into the document.

    The same again goes on with what was interrupted, and does nothing where it was complete.

    Raises:
        UsageError: there is no version, or no question.
        DlmError: the document, the store, the version or the judge cannot be used, or a command was not allowed.
        InterruptedRunError: stopped by a signal; the same command goes on.
    """
    document = load(path)
    for problem in document.warnings:
        view.warn(problem.at(str(path)))
    with Home.open().store(document.header.dlm_id) as store:
        note = store.attach(path)
        if note:
            view.note(note)
        plan = _plan(document, path, options, store)
        if plan.judge.runs_code and options.judge is None:
            options.allow(plan.judge.argv)
        with store.lock(f"dlm preference mine {path.name}"), stop_on_signals(view.stopping) as stop:
            before = _find(store, plan)
            repeated = before is not None and before.status == "complete"
            if before is not None and repeated:
                view.note(
                    f"run {before.id} mined exactly this: nothing is sampled or judged again (--seed N samples anew)"
                )
                result = result_of(store, before.id)
            else:
                result = _run(store, plan, before, view, lambda: stop.reason)
        applied = _apply(store, path, result) if options.apply else None
        if applied is not None:
            result = result_of(store, result.run_id)  # with what became of its pairs
        return MineReport(Choice(plan.version_name, plan.picked.reason), result, repeated, applied)


def _apply(store: Store, path: Path, result: MineResult) -> ApplyReport | None:
    """Write exactly what this run mined, by number: that a person accepted some of it, or something of another run,
    takes nothing away and adds nothing. What was rejected or reverted stays out. None where there is nothing.
    """
    ids = [pair.id for pair in result.pairs if pair.status in ("staged", "accepted")]
    if not ids and any(pair.status == "applied" for pair in result.pairs):
        return apply(store, path, batch=result.run_id)  # says that they stand there already
    return apply(store, path, ids) if ids else None


def dry_run(path: Path, options: MineOptions) -> MinePreview:
    """What `mine_pairs` would do. Nothing is written, loaded or run.

    Raises:
        UsageError: there is no version, or no question.
        DlmError: the document or the store cannot be read, or the judge is not there.
    """
    document = load(path)
    store = Home.open().find(document.header.dlm_id)
    try:
        plan = _plan(document, path, options, store)
        before = _find(store, plan) if store is not None else None
        there = store.mining.candidates(before.id) if store is not None and before is not None else ()
        if before is None or before.status != "complete":
            _check_judge(plan)
    finally:
        if store is not None:
            store.close()
    return MinePreview(
        version=Choice(plan.version_name, plan.picked.reason),
        judge=plan.judge.text,
        questions=plan.questions,
        samples=options.settings.samples,
        sampled=len(there),
        judged=sum(candidate.attempts > 0 for candidate in there),
        run_id=None if before is None else before.id,
        complete=before is not None and before.status == "complete",
    )


def _plan(document: Document, path: Path, options: MineOptions, store: Store | None) -> _Plan:
    picked = pick_version(store, options.version)
    if picked.value is None and options.version != BASE:
        raise UsageError(
            "there is no version to sample answers from: the document has not been trained",
            next_step=f"{shlex.join(['dlm', 'train', str(path)])}, or --version base to sample the untrained base",
        )
    if picked.value is not None and not picked.value.answers:
        raise UsageError(f"{picked.value.name} is a reward model: it scores answers and gives none")
    named = options.judge if options.judge is not None else document.header.judge
    return _Plan(
        document=document,
        path=path,
        options=options,
        spec=resolve_base(picked.value.base if picked.value else document.header.base_model, path.parent),
        picked=picked,
        judge=parse_judge(named or "sway"),
        judge_folder=Path.cwd() if options.judge is not None else path.parent.absolute(),
        questions=_questions(document, options.questions_file),
    )


def _questions(document: Document, file: Path | None) -> list[Question]:
    if file is None:
        found = questions_of_document(document)
        if not found:
            raise UsageError(
                "the document has no question to sample answers to; probes are held out and never asked",
                expected="an ::instruction:: section with ### Q and ### A",
                next_step="add questions to the document, or name a file of them: --questions FILE",
            )
        return found
    found = questions_of_file(file, probes_of(document))
    if not found:
        raise UsageError(
            "the file has no question to ask; the document's probes are held out",
            where=str(file),
            next_step='write one question on each line, or JSON lines with a "prompt"',
        )
    return found


def _find(store: Store, plan: _Plan) -> Run | None:
    """The newest run that mined the same or began to."""
    parent = None if plan.picked.value is None else plan.picked.value.name
    facts = plan.facts()
    same = (
        run
        for run in reversed(store.runs.list())
        if run.kind == "mine" and run.parent_version == parent and dict(run.recipe) == facts
    )
    return next((run for run in same if run.resumable or run.status == "complete"), None)


def _run(
    store: Store, plan: _Plan, before: Run | None, view: MiningView, stop: Callable[[], str]
) -> MineResult:
    """Start a run, or go on with one."""
    _check_judge(plan)
    policy = _load(plan)
    if before is not None and before.base_fingerprint == policy.fingerprint:
        view.note(f"going on with run {before.id}")
        torch.set_num_threads(before.threads)  # sums in another order could turn a near tie
        run = store.runs.resume(before.id)
    else:
        run = store.runs.start(_spec(plan, policy))
        facts = {"questions": len(plan.questions), "samples": plan.options.settings.samples}
        store.runs.event(run.id, STARTED, {**facts, "version": plan.version_name, "judge": plan.judge.text})
    with _recorded(store, run):
        return mine(
            Job(
                store=store,
                run=run,
                policy=policy,
                questions=plan.questions,
                settings=plan.options.settings,
                make_judge=lambda: make_judge(plan.judge, _context(plan, policy)),
                known=_known(plan.document, run.id),
                view=view,
                stop=stop,
            )
        )


def _model_of(judge: JudgeSpec, folder: Path) -> str:
    """What a reward model is now: another one in the same folder is another judge. "" for other judges."""
    if judge.kind != "hf":
        return ""
    from dlm.judging.reward_model import fingerprint_model

    return fingerprint_model(judge.target, folder)


def _check_judge(plan: _Plan) -> None:
    """A judge that is not there is found out before minutes of sampling, not after them."""
    check_judge(plan.judge, timeout_s=plan.options.judge_timeout_s, folder=plan.judge_folder)


def _load(plan: _Plan) -> Policy:
    header, picked = plan.document.header, plan.picked.value
    precision = header.training.precision
    if precision == "fp16" and choose_device(plan.options.device).value == "cpu":
        precision = None  # the header speaks of the machine it was trained on
    return load_policy(
        plan.spec,
        picked.folder if picked else None,
        device=plan.options.device,
        precision=precision,
        system_prompt=header.system_prompt,
    )


def _spec(plan: _Plan, policy: Policy) -> RunSpec:
    return RunSpec(
        kind="mine",
        method=plan.judge.text,
        recipe=plan.facts(),
        parent_version=None if plan.picked.value is None else plan.picked.value.name,
        data_hash=content_hash(plan.questions, plan.document.header.system_prompt),
        base=plan.spec.name,
        base_fingerprint=policy.fingerprint,
        libraries=library_versions(),
        threads=torch.get_num_threads(),
        seed=plan.options.settings.seed,
        document_sha256=plan.document.sha256,
    )


def _context(plan: _Plan, policy: Policy) -> JudgeContext:
    return JudgeContext(
        policy=policy,
        anchors=tuple(Anchor(*answer) for answer in hand_written_answers(plan.document)),
        base=plan.spec,
        device=plan.options.device,
        precision=plan.document.header.training.precision,
        timeout_s=plan.options.judge_timeout_s,
        folder=plan.judge_folder,
        cases=_cases(plan) if plan.judge.kind == "grader" else {},
    )


def _cases(plan: _Plan) -> dict[str, Case]:
    """What the document's suites know of the prompts that are asked, what is there to be trained on included."""
    asked = {question.prompt for question in plan.questions}
    folder, document = plan.path.parent, plan.document
    found = [case for name in document.header.evals for case in read_suite(document, folder, name).cases]
    for suite in document.header.evals.values():
        if suite.task is None:
            found += read_cases(folder / str(suite.cases))
        else:
            splits = ("train", "stress_train")
            found += [case for split in splits for case in task_cases(suite.task, split, rows=suite.rows)]
    return {case.prompt: case for case in found if case.prompt in asked}


def _known(document: Document, run_id: int) -> set[str]:
    """The keys of the document's pairs, those aside that this very run wrote."""
    return {
        pair_key(triple.prompt, triple.chosen, triple.rejected)
        for section in document.sections
        if section.provenance is None or section.provenance.mined_run_id != run_id
        for triple in section.triples
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


@contextmanager
def _recorded(store: Store, run: Run) -> Iterator[None]:
    """Whatever ends the block, the run's record says so. Only what would happen again makes it `failed`."""
    try:
        yield
    except BaseException as fault:
        if store.runs.get(run.id).status == "running":
            status = "failed" if isinstance(fault, TrainingError) else "interrupted"
            store.runs.finish(run.id, status, (str(fault) or type(fault).__name__).partition("\n")[0])
        raise
