"""Evaluation of versions on a document's suites: answers sampled in batches, graded, and kept, case by case."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path

from dlm.bases import resolve_base
from dlm.document import Document, load
from dlm.errors import UsageError
from dlm.evaluation import Ceiling, Suite, adequate_budget, gold_ceiling, read_suite, suite_names
from dlm.grading import ErrorTally, make_grader
from dlm.model import Policy, choose_device, load_policy
from dlm.recipe import Choice
from dlm.store import Home, Version
from dlm.workflow.candidates import candidate_versions
from dlm.workflow.evaluation_options import EvalOptions, EvalReport, EvalView
from dlm.workflow.evaluation_run import SuiteRun, ceiling_data, flat
from dlm.workflow.interrupt import stop_on_signals
from dlm.workflow.prompt import pick_version

__all__ = ["EvalOptions", "EvalReport", "EvalView", "ceiling_data", "ceilings", "evaluate", "flat"]


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
                    job = SuiteRun(
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
            tally = ErrorTally(options.allowed_errors, what="references")
            found[suite.name] = gold_ceiling(
                suite, policy.chat, budget, policy.context_length, partial(tally.all_of, grader)
            )
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
