"""One suite answered by one version: a run of the kind `eval`.

Its rows are asked in fixed blocks, and a block's graded answers are recorded together: a run that was killed asks the blocks
anew that are not there, each as it was composed before, so that its answers are the same bit for bit, no case is lost, and
none is counted twice. The same evaluation again finds the run that is complete and asks nothing. Once all is answered, the
references are read under teacher forcing, in blocks as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dlm.document import Document
from dlm.errors import ContextLengthError, GradingError, InterruptedRunError, TrainingError
from dlm.evaluation import (
    Ceiling,
    Suite,
    adequate_budget,
    case_not_asked,
    case_result,
    force_references,
    gold_ceiling,
    plain_means,
    summarise,
)
from dlm.grading import Case, ErrorTally, Grader, make_grader
from dlm.model import Policy, Sample, Settings, sample
from dlm.store import EvalResult, Run, RunSpec, Store, Version
from dlm.workflow.evaluation_options import EvalOptions, EvalReport, EvalView
from dlm.workflow.gate_evidence import CEILING, ceiling_figures
from dlm.workflow.instruments import REFERENCES, reference_scores, teacher_forced
from dlm.workflow.libraries import library_versions
from dlm.workflow.prompt import BASE

__all__ = ["BLOCK", "SuiteRun", "ceiling_data", "flat"]

BLOCK = 64  # answers that are sampled, graded and recorded together


@dataclass(frozen=True)
class _Asked:
    """One row: which answer to which case."""

    index: int
    repeat: int
    case: Case


@dataclass(frozen=True)
class SuiteRun:
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
            self._force_references(before)  # which runs of earlier versions of dlm did not
            return self._report(before, facts, repeated=True)
        too_long = self._too_long()
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
                self._ask_all(run, grader, facts, too_long)
                self._force_references(run)
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
            **options.sampling,
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
            libraries=library_versions(),
            threads=torch.get_num_threads(),
            seed=self.options.seed,
            document_sha256=self.document.sha256,
            planned_steps=len(self.suite.cases) * self.options.repeats,
        )

    def _keep_ceiling(self, run: Run, grader: Grader, facts: Mapping[str, Any]) -> None:
        if self.store.runs.events(run.id, CEILING):
            return
        tally = ErrorTally(self.options.allowed_errors, what="references")
        grade = partial(tally.all_of, grader, heed=partial(self._heed_stop, run, "before the first answer"))
        policy, budget = self.policy, facts["max_new_tokens"]
        found = gold_ceiling(self.suite, policy.chat, budget, policy.context_length, grade)
        if found is not None:
            self.store.runs.event(run.id, CEILING, ceiling_data(found))
            if found.cut and self.suite.name not in self.warned:
                self.warned.add(self.suite.name)
                self.view.warn(f"{self.suite.name}: {found.cut}; no version can give them")

    def _too_long(self) -> dict[int, str]:
        """Why a case cannot be asked, by its place in the suite: its prompt leaves no room for an answer.

        Raises:
            ContextLengthError: of more than the allowed share of the cases.
        """
        found: dict[int, str] = {}
        last = None
        for index, case in enumerate(self.suite.cases):
            try:
                self.policy.require_room(len(self.policy.chat.prompt_ids(case.prompt)))
            except ContextLengthError as error:
                last, found[index] = error, f"{error.message}: {error.found}, where {error.expected}"
        n, of = len(found), len(self.suite.cases)
        if last is not None and n > self.options.allowed_errors * of:
            places = ", ".join(self.suite.cases[index].place for index in list(found)[:3])
            raise ContextLengthError(
                f"{self.suite.name}: {n} of {of} prompts are too long for the base, which leaves too little to measure",
                where=places,
                expected=f"at most {self.options.allowed_errors:.0%} of them (--allowed-errors); {last.expected}",
                found=last.found,
                next_step="shorten them, or name a base with a longer context",
            )
        if found:
            self.view.warn(
                f"{self.suite.name}: {n} of {of} prompts are too long for the base and are not asked; they are counted as "
                f"prompt_too_long ({self.suite.cases[next(iter(found))].place}: {last.found if last else ''})"
            )
        return found

    def _ask_all(
        self, run: Run, grader: Grader, facts: Mapping[str, Any], too_long: Mapping[int, str]
    ) -> None:
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
        results = list(self.store.evaluations.results(run.id))
        asked = [result for result in results if result.answered]
        tally.seen, tally.errors = len(asked), sum(not result.scored for result in asked)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            if all((row.index, row.repeat) in done for row in block):
                continue
            heed = partial(self._heed_stop, run, f"after {counted} of {len(rows)} answers; they are kept")
            heed()
            asking = [row for row in block if row.index not in too_long]
            answers = self._sample(asking, settings)
            items = [
                row.case.item(answer.text, truncated=answer.finish_reason == "length")
                for row, answer in zip(asking, answers, strict=True)
            ]
            grades = tally.in_turn(grader, items, heed)
            made = [
                case_result(
                    row.case,
                    row.index,
                    answer.text,
                    grade,
                    repeat=row.repeat,
                    finish_reason=answer.finish_reason,
                    n_tokens=len(answer.ids),
                )
                for row, answer, grade in zip(asking, answers, grades, strict=False)
            ]
            made += [
                case_not_asked(row.case, row.index, too_long[row.index], repeat=row.repeat)
                for row in block
                if row.index in too_long
            ]
            self.store.evaluations.record(run.id, made)
            results += made
            counted += len(made)
            if means := _running_means(results):
                with self.store.metrics.writer(run.id) as writer:
                    writer.log(counted, means)
            self.view.answered(self.suite.name, self.version_name, counted, len(rows))
            tally.add(grades)
            if len(grades) < len(asking):
                tally.check()
        tally.check()

    def _sample(self, block: Sequence[_Asked], settings: Settings) -> list[Sample]:
        prompts = [self.policy.chat.prompt_ids(row.case.prompt) for row in block]
        seeds = [_seed(self.options.seed, row) for row in block]
        return sample(self.policy, prompts, settings, seeds)

    def _force_references(self, run: Run) -> None:
        """Read the references that were not read yet, block by block; see `dlm.evaluation.teacher_forcing`.

        Raises:
            InterruptedRunError: a stop was asked for.
        """
        given = [index for index, case in enumerate(self.suite.cases) if case.reference is not None]
        known = {score.case_index for score in reference_scores(self.store, run.id)}
        for start in range(0, len(given), BLOCK):
            block = given[start : start + BLOCK]
            if known.issuperset(block):
                continue
            self._heed_stop(
                run, f"with all answers there and {len(known)} of {len(given)} references read; they are kept"
            )
            scores = force_references(self.policy, {index: self.suite.cases[index] for index in block})
            data = [[score.case_index, score.tokens, score.right, score.nats] for score in scores]
            self.store.runs.event(run.id, REFERENCES, {"references": data})
            known.update(block)

    def _heed_stop(self, run: Run, where: str) -> None:
        if self.stop():
            raise InterruptedRunError(
                f"run {run.id} stopped by {self.stop()} {where}",
                next_step="the same command goes on",
            )

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
            references=teacher_forced(self.store, run.id),
            repeated=repeated,
        )


def ceiling_data(found: Ceiling) -> dict[str, Any]:
    """A ceiling as the event keeps it: the figures that a condition may be compared with."""
    return {
        "budget": found.budget,
        "cases": found.cases,
        "reachable": found.reachable,
        "beyond_context": found.beyond_context,
        "longest": found.longest,
        "means": {name: estimate.value for name, estimate in found.summary.means.items()},
        "counts": dict(found.summary.counts),
    }


def flat(found: Ceiling) -> dict[str, float]:
    """A ceiling's figures by metric: means, counts, and the counts as shares."""
    return ceiling_figures(ceiling_data(found))


def _running_means(results: Sequence[EvalResult]) -> dict[str, float]:
    """The means so far, for `dlm metrics` and the pages; their intervals come with the report."""
    return {f"eval/{name}": value for name, value in plain_means(results).items()}


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
