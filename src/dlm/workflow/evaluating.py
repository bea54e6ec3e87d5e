"""Evaluation of versions on a document's suites: answers sampled in batches, graded, and kept, case by case.

One run of the kind `eval` for each suite and version. Its rows are asked in fixed blocks, and a block's graded answers are
recorded together: a run that was killed asks the blocks anew that are not there, each as it was composed before, so that
its answers are the same bit for bit, no case is lost, and none is counted twice. The same evaluation again finds the run
that is complete and asks nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import torch

from dlm.bases import resolve_base
from dlm.document import Document, load
from dlm.errors import GradingError, InterruptedRunError, TrainingError, UsageError
from dlm.evaluation import (
    Ceiling,
    Suite,
    Summary,
    adequate_budget,
    gold_ceiling,
    read_suite,
    suite_names,
    summarise,
)
from dlm.grading import Case, ErrorTally, Grade, Grader, make_grader
from dlm.model import Policy, Sample, Settings, choose_device, load_policy, sample
from dlm.recipe import Choice
from dlm.store import EvalResult, Home, Run, RunSpec, Store, Version
from dlm.workflow.candidates import candidate_versions
from dlm.workflow.interrupt import stop_on_signals
from dlm.workflow.prompt import BASE, pick_version

__all__ = [
    "BLOCK",
    "CEILING",
    "EvalOptions",
    "EvalReport",
    "EvalView",
    "ceiling_data",
    "ceilings",
    "evaluate",
    "flat",
]

BLOCK = 64  # answers that are sampled, graded and recorded together
CEILING = "gold_ceiling"  # the kind of the event that keeps it
_LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


class EvalView(Protocol):
    """Who shows an evaluation to a person."""

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def answered(self, suite: str, version: str, done: int, of: int) -> None: ...
    def stopping(self) -> None:
        """A stop was asked for. Called from a signal handler: no locks, no buffered streams."""


@dataclass(frozen=True)
class EvalOptions:
    """What the caller asks for beyond the document.

    Attributes:
        suites: names; empty: all of the document's.
        versions: names, or "base"; empty: the current one, or the base where nothing is trained.
        candidates: also the checkpoints that the curves of run `run_id` propose (None: the newest), each as a version.
        repeats: answers to each case.
        temperature: None: greedy for one answer a case, 1 for several.
        max_new_tokens: instead of the suites' own budgets.
        allowed_errors: share of answers that the grader may fail on before the run stops.
        again: ask anew although the same was evaluated before.
        allow: called with what a consent is for, before a Python grader that the document names is run; it raises when it
            may not.
    """

    suites: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    candidates: bool = False
    run_id: int | None = None
    repeats: int = 1
    temperature: float | None = None
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int | None = None
    allowed_errors: float = 0.1
    again: bool = False
    device: str = "auto"
    allow: Callable[[Sequence[str]], None] = field(default=lambda argv: None)

    def __post_init__(self) -> None:
        faults = [
            (self.repeats < 1, "repeats", "1 or more", self.repeats),
            (not 0 <= self.allowed_errors <= 1, "allowed_errors", "0 to 1", self.allowed_errors),
            (
                self.repeats > 1 and self.temperature == 0,
                "temperature",
                "above 0 with several repeats: greedy answers are all the same",
                self.temperature,
            ),
        ]
        for wrong, name, expected, found in faults:
            if wrong:
                raise UsageError(f"{name} is out of range", expected=expected, found=repr(found))

    @property
    def heat(self) -> float:
        """The temperature that is used."""
        return self.temperature if self.temperature is not None else float(self.repeats > 1)


@dataclass(frozen=True)
class EvalReport:
    """One suite and version. `repeated`: it had been evaluated before, and nothing was asked."""

    suite: str
    version: str
    run_id: int
    grader: str
    settings: Mapping[str, Any]
    summary: Summary
    ceiling: Mapping[str, Any] | None
    repeated: bool


@dataclass(frozen=True)
class _Asked:
    """One row: which answer to which case."""

    index: int
    repeat: int
    case: Case


def evaluate(path: Path, options: EvalOptions, view: EvalView) -> list[EvalReport]:
    """Evaluate versions on suites, in the order version by version; what an earlier process did is not done again.

    Raises:
        UsageError: no suite, no such version.
        GradingError: the grader failed too often, or cannot be loaded.
        DlmError: the document, the store or a version cannot be used, or a file was not allowed.
        InterruptedRunError: stopped by a signal; the same command goes on.
    """
    document = load(path)
    suites = _suites(document, path, options)
    with Home.open().store(document.header.dlm_id) as store:
        note = store.attach(path)
        if note:
            view.note(note)
        for argv in {suite.grader.consent_argv for suite in suites if suite.grader.files}:
            options.allow(argv)
        reports: list[EvalReport] = []
        warned: set[str] = set()
        with store.lock(f"dlm eval {path.name}"), stop_on_signals(view.stopping) as stop:
            proposed = candidate_versions(store, path, options.run_id, view) if options.candidates else ()
            for name in dict.fromkeys((*options.versions, *proposed)) or (None,):
                picked = pick_version(store, name)
                if picked.value is not None and not picked.value.answers:
                    raise UsageError(
                        f"{picked.value.name} is a reward model: it scores answers and gives none"
                    )
                policy = _load(document, path, picked, options.device)
                for suite in suites:
                    job = _Job(
                        document,
                        path,
                        store,
                        options,
                        view,
                        lambda: stop.reason,
                        picked.value,
                        policy,
                        suite,
                        warned,
                    )
                    reports.append(job.run())
                del policy
        return reports


def ceilings(path: Path, options: EvalOptions, view: EvalView) -> dict[str, Ceiling | None]:
    """The gold ceiling of each suite under its token budget. No version is asked, nothing is recorded.

    Raises:
        As `evaluate`.
    """
    document = load(path)
    found: dict[str, Ceiling | None] = {}
    policy = _load(document, path, Choice(None, "its tokenizer counts"), options.device)
    for suite in _suites(document, path, options):
        if suite.grader.files:
            options.allow(suite.grader.consent_argv)
        budget = options.max_new_tokens or suite.max_new_tokens or adequate_budget(suite, policy.chat)
        with closing(
            make_grader(suite.grader, folder=path.parent, pass_threshold=suite.pass_threshold)
        ) as grader:
            found[suite.name] = gold_ceiling(suite, policy.chat, budget, grader)
    return found


def _suites(document: Document, path: Path, options: EvalOptions) -> list[Suite]:
    names = options.suites or suite_names(document)
    if not names:
        raise UsageError(
            "the document has no suite to evaluate",
            expected="evals in its header, or questions marked ### Q !probe",
            where=str(path),
            next_step="for example, in the header:  evals: {tables: {task: spreadsheet}}",
        )
    return [read_suite(document, path.parent, name) for name in dict.fromkeys(names)]


def _load(document: Document, path: Path, picked: Choice[Version | None], device: str) -> Policy:
    chosen = picked.value
    precision = document.header.training.precision
    if precision == "fp16" and choose_device(device).value == "cpu":
        precision = None  # the header speaks of the machine it was trained on
    return load_policy(
        resolve_base(chosen.base if chosen else document.header.base_model, path.parent),
        chosen.folder if chosen else None,
        device=device,
        precision=precision,
        system_prompt=document.header.system_prompt,
    )


@dataclass(frozen=True)
class _Job:
    """One suite and one version, loaded."""

    document: Document
    path: Path
    store: Store
    options: EvalOptions
    view: EvalView
    stop: Callable[[], str]
    version: Version | None
    policy: Policy
    suite: Suite
    warned: set[str]  # suites whose ceiling was spoken of

    @property
    def version_name(self) -> str:
        return BASE if self.version is None else self.version.name

    def run(self) -> EvalReport:
        """Do what is missing of it."""
        facts = self._facts()
        before = self._find(facts)
        if before is not None and before.status == "complete":
            self.view.note(f"run {before.id} evaluated exactly this: nothing is asked again")
            return self._report(before, facts, repeated=True)
        with closing(
            make_grader(self.suite.grader, folder=self.path.parent, pass_threshold=self.suite.pass_threshold)
        ) as grader:
            if before is None:
                run = self.store.runs.start(self._spec(facts))
            else:
                self.view.note(f"going on with run {before.id}")
                torch.set_num_threads(before.threads)  # sums in another order could turn a near tie
                run = self.store.runs.resume(before.id)
            with _recorded(self.store, run):
                self._keep_ceiling(run, grader, facts)
                self._ask_all(run, grader, facts)
                self.store.runs.finish(run.id, "complete")
        return self._report(run, facts, repeated=False)

    def _facts(self) -> dict[str, Any]:
        """Everything that decides the answers and their grades, beside the version."""
        options, suite = self.options, self.suite
        budget = options.max_new_tokens or suite.max_new_tokens or adequate_budget(suite, self.policy.chat)
        return {
            **suite.identity,
            "grader_code": suite.grader_code(self.path.parent),
            "max_new_tokens": budget,
            "temperature": options.heat,
            "top_p": options.top_p,
            "repeats": options.repeats,
            "seed": options.seed,
            "system_prompt": self.document.header.system_prompt or "",
        }

    def _find(self, facts: Mapping[str, Any]) -> Run | None:
        """The newest run that evaluated the same or began to, with the same base."""
        parent = None if self.version is None else self.version.name
        for run in reversed(self.store.runs.list()):
            same = run.kind == "eval" and run.parent_version == parent and dict(run.recipe) == dict(facts)
            if not same or run.base_fingerprint != self.policy.fingerprint:
                continue
            if run.resumable or (run.status == "complete" and not self.options.again):
                return run
            if run.status == "complete":
                return None
        return None

    def _spec(self, facts: Mapping[str, Any]) -> RunSpec:
        return RunSpec(
            kind="eval",
            method=self.suite.grader.text,
            recipe=facts,
            parent_version=None if self.version is None else self.version.name,
            data_hash=str(facts["cases"]),
            base=self.version.base if self.version else self.document.header.base_model,
            base_fingerprint=self.policy.fingerprint,
            libraries=_library_versions(),
            threads=torch.get_num_threads(),
            seed=self.options.seed,
            document_sha256=self.document.sha256,
            planned_steps=len(self.suite.cases) * self.options.repeats,
        )

    def _keep_ceiling(self, run: Run, grader: Grader, facts: Mapping[str, Any]) -> None:
        if self.store.runs.events(run.id, CEILING):
            return
        found = gold_ceiling(self.suite, self.policy.chat, facts["max_new_tokens"], grader)
        if found is not None:
            self.store.runs.event(run.id, CEILING, ceiling_data(found))
            if found.reachable < found.cases and self.suite.name not in self.warned:
                self.warned.add(self.suite.name)
                self.view.warn(
                    f"{self.suite.name}: {found.cases - found.reachable} of {found.cases} references need more than the "
                    f"{found.budget} tokens an answer may have (the longest {found.longest}); no version can give them"
                )

    def _ask_all(self, run: Run, grader: Grader, facts: Mapping[str, Any]) -> None:
        """Ask what is missing, block by block.

        Raises:
            GradingError: the grader failed too often; what was recorded stays.
            InterruptedRunError: a stop was asked for.
        """
        rows = [
            _Asked(index, repeat, case)
            for index, case in enumerate(self.suite.cases)
            for repeat in range(self.options.repeats)
        ]
        done = self.store.evaluations.done(run.id)
        tally = ErrorTally(self.options.allowed_errors)
        settings = Settings(
            temperature=facts["temperature"], top_p=facts["top_p"], max_new_tokens=facts["max_new_tokens"]
        )
        counted = len(done)
        earlier = self.store.evaluations.results(run.id)
        tally.seen, tally.errors = len(earlier), sum(not result.scored for result in earlier)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            if all((row.index, row.repeat) in done for row in block):
                continue
            if self.stop():
                raise InterruptedRunError(
                    f"run {run.id} stopped by {self.stop()} after {counted} of {len(rows)} answers; they are kept",
                    next_step="the same command goes on",
                )
            answers = self._sample(block, settings)
            grades = grader.grade(
                [
                    row.case.item(answer.text, truncated=answer.finish_reason == "length")
                    for row, answer in zip(block, answers, strict=True)
                ]
            )
            self.store.evaluations.record(
                run.id,
                [
                    _result(row, answer, grade)
                    for row, answer, grade in zip(block, answers, grades, strict=True)
                ],
            )
            counted += len(block)
            self.view.answered(self.suite.name, self.version_name, counted, len(rows))
            tally.add(grades)
        tally.check()

    def _sample(self, block: Sequence[_Asked], settings: Settings) -> list[Sample]:
        prompts = [self.policy.chat.prompt_ids(row.case.prompt) for row in block]
        seeds = [_seed(self.options.seed, row) for row in block]
        return sample(self.policy, prompts, settings, seeds)

    def _report(self, run: Run, facts: Mapping[str, Any], *, repeated: bool) -> EvalReport:
        kept = self.store.runs.events(run.id, CEILING)
        return EvalReport(
            suite=self.suite.name,
            version=self.version_name,
            run_id=run.id,
            grader=self.suite.grader.text,
            settings=facts,
            summary=summarise(self.store.evaluations.results(run.id)),
            ceiling=kept[-1].data if kept else None,
            repeated=repeated,
        )


def ceiling_data(found: Ceiling) -> dict[str, Any]:
    """A ceiling as the event keeps it: the figures that a condition may be compared with."""
    return {
        "budget": found.budget,
        "cases": found.cases,
        "reachable": found.reachable,
        "longest": found.longest,
        "means": {name: estimate.value for name, estimate in found.summary.means.items()},
        "counts": dict(found.summary.counts),
    }


def flat(found: Ceiling) -> dict[str, float]:
    """A ceiling's figures by metric, means and counts together."""
    return {**found.summary.counts, **{name: one.value for name, one in found.summary.means.items()}}


def _result(row: _Asked, answer: Sample, grade: Grade) -> EvalResult:
    return EvalResult(
        case_index=row.index,
        repeat=row.repeat,
        case_key=row.case.key,
        place=row.case.place,
        prompt=row.case.prompt,
        output=answer.text,
        score=grade.score,
        dimensions=grade.dimensions,
        flags=grade.flags,
        passed=grade.passed,
        error=grade.error,
        message=grade.message,
        finish_reason=answer.finish_reason,
        n_tokens=len(answer.ids),
    )


def _seed(seed: int, row: _Asked) -> int:
    """A row's own seed, an integer of 64 bits with a sign: by what the case is, not by where it stands."""
    content = json.dumps(["eval", seed, row.case.key, row.repeat]).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big", signed=True)


@contextmanager
def _recorded(store: Store, run: Run) -> Iterator[None]:
    """Whatever ends the block, the run's record says so. Only what would happen again makes it `failed`."""
    try:
        yield
    except BaseException as fault:
        if store.runs.get(run.id).status == "running":
            status = "failed" if isinstance(fault, (TrainingError, GradingError)) else "interrupted"
            store.runs.finish(run.id, status, (str(fault) or type(fault).__name__).partition("\n")[0])
        raise


def _library_versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
