"""A mine run through the workflow, on a base of a few thousand weights: what it stages, and that nothing is done twice."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dlm.document import load
from dlm.errors import ConsentError, InterruptedRunError, LockedError, UsageError
from dlm.mining import FINISHED, SKIP_REASONS, MineSettings
from dlm.store import Home, Store
from dlm.workflow import mining
from dlm.workflow.mining import MineOptions, MineReport, dry_run, mine_pairs
from mining_helpers import DLM_ID, RuleJudge, Watcher, mine_and_die, rule_score

pytestmark = pytest.mark.torch
SETTINGS = {"samples": 3, "max_new_tokens": 10, "allow_truncated": True}
OPTIONS = MineOptions(MineSettings(**SETTINGS), version="base", device="cpu")


def options(**changes: Any) -> MineOptions:
    """The usual options; what `MineSettings` knows goes there."""
    names = {field.name for field in dataclasses.fields(MineSettings)}
    inner = {name: value for name, value in changes.items() if name in names}
    outer = {name: value for name, value in changes.items() if name not in names}
    return dataclasses.replace(OPTIONS, settings=MineSettings(**{**SETTINGS, **inner}), **outer)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the judge was asked, line by line; it replaces every judge."""
    path = tmp_path / "judged.txt"
    monkeypatch.setattr(mining, "make_judge", lambda spec, context: RuleJudge(path))
    return path


def asked(log: Path) -> Counter[str]:
    return Counter(log.read_text(encoding="utf-8").splitlines()) if log.exists() else Counter()


def texts(report: MineReport) -> list[tuple[str, str, str, float, float]]:
    return [(p.prompt, p.chosen, p.rejected, p.chosen_score, p.rejected_score) for p in report.result.pairs]


def store_of(document: Path) -> Store:
    store = Home.open().find(DLM_ID)
    assert store is not None
    return store


def test_a_run_from_questions_to_staged_pairs(document: Path, log: Path, view: Watcher) -> None:
    before = document.read_bytes()
    report = mine_pairs(document, OPTIONS, view)
    result = report.result
    assert document.read_bytes() == before
    assert report.version.value == "base"
    assert len(result.pairs) >= 5
    assert sum(result.skipped_prompts.values()) + len(result.pairs) == 10
    assert tuple(result.skipped_prompts) == SKIP_REASONS
    assert result.tally.candidates == 30
    assert result.tally.judged == sum(asked(log).values())
    assert set(asked(log).values()) == {1}
    for pair in result.pairs:
        assert pair.status == "staged"
        assert pair.chosen_score == rule_score(pair.chosen)
        assert pair.rejected_score == rule_score(pair.rejected)
        assert pair.margin >= 0.1
    with store_of(document) as store:
        run = store.runs.get(result.run_id)
        assert (run.kind, run.status, run.method, run.parent_version) == ("mine", "complete", "sway", None)
        assert run.document_sha256 == load(document).sha256
        kinds = [event.kind for event in store.runs.events(run.id)]
        assert kinds == ["mining_started", "mining_sampled", "mining_finished"]
        facts = store.runs.events(run.id, FINISHED)[0].data
        assert facts["pairs"] == len(result.pairs)
        assert facts["judge_calls"] == facts["judged"] == result.tally.judged
        assert (
            facts["tokens"] == result.tally.tokens == sum(c.n_tokens for c in store.mining.candidates(run.id))
        )
        for candidate in store.mining.candidates(run.id):
            if candidate.skip == "duplicate":
                stands = store.mining.candidate(candidate.duplicate_of or 0)
                assert stands.skip is None
                assert stands.question_key == candidate.question_key


def test_the_same_again_does_nothing_and_other_settings_begin_anew(
    document: Path, log: Path, view: Watcher
) -> None:
    first = mine_pairs(document, OPTIONS, view)
    count = sum(asked(log).values())
    again = mine_pairs(document, OPTIONS, view)
    assert again.repeated
    assert again.result.run_id == first.result.run_id
    assert again.result == first.result
    assert sum(asked(log).values()) == count
    other = mine_pairs(document, options(threshold=0.0), view)
    assert other.result.run_id != first.result.run_id
    known = {frozenset(row[:3]) for row in texts(first)}
    assert not known & {frozenset(row[:3]) for row in texts(other)}  # mined before
    assert other.result.skipped_prompts["already_present"] >= 0


def test_a_question_s_answers_do_not_depend_on_what_else_is_asked(
    document: Path, log: Path, view: Watcher, tmp_path: Path
) -> None:
    mine_pairs(document, OPTIONS, view)
    few = tmp_path / "few.txt"
    few.write_text("What is number 7?\nSomething else?\n", encoding="utf-8")
    mine_pairs(document, options(questions_file=few), view)
    with store_of(document) as store:
        runs = [run.id for run in store.runs.list()]
        both = [
            [c.text for c in store.mining.candidates(run) if c.prompt == "What is number 7?"] for run in runs
        ]
    assert both[0] == both[1]
    assert len(both[0]) == 3


class StopError(Exception):
    """Stands for a kill that leaves the process alive."""


@pytest.mark.big
@pytest.mark.parametrize("moment", ["sampled 1", "sampled 10", "judged 1", "judged 14"])
def test_a_run_that_died_goes_on_and_comes_to_the_same_pairs(
    document: Path, log: Path, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mine_pairs(document, OPTIONS, Watcher())
    monkeypatch.setenv("DLM_HOME", str(tmp_path / "other"))
    log.unlink()

    def die(now: str) -> None:
        if now == moment:
            raise StopError

    with pytest.raises(StopError):
        mine_pairs(document, OPTIONS, Watcher(die))
    with store_of(document) as store:
        (run,) = store.runs.list()
        assert run.status == "interrupted"
        there = {c.id for c in store.mining.candidates(run.id)}
    view = Watcher()
    report = mine_pairs(document, OPTIONS, view)
    assert "going on with run 1" in view.notes
    assert texts(report) == texts(whole)
    assert report.result.tally.judge_calls == whole.result.tally.judge_calls
    assert set(asked(log).values()) == {1}
    assert report.result.skips == whole.result.skips
    with store_of(document) as store:
        assert there <= {c.id for c in store.mining.candidates(report.result.run_id)}
        assert len(store.mining.candidates(report.result.run_id)) == 30


@pytest.mark.big
def test_killed_between_staging_and_the_end(
    document: Path, log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from dlm.store import Runs

    whole = mine_pairs(document, OPTIONS, Watcher())
    monkeypatch.setenv("DLM_HOME", str(tmp_path / "other"))
    for method in ("event", "finish"):
        original = getattr(Runs, method)

        def fail(self: Any, *args: Any, _original: Any = original) -> Any:
            if args[1] in (FINISHED, "complete"):
                raise StopError
            return _original(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Runs, method, fail)
            with pytest.raises(StopError):
                mine_pairs(document, OPTIONS, Watcher())
    report = mine_pairs(document, OPTIONS, Watcher())
    assert texts(report) == texts(whole)
    with store_of(document) as store:
        assert len(store.runs.events(report.result.run_id, FINISHED)) == 1


def test_ctrl_c_keeps_what_is_done(document: Path, log: Path) -> None:
    import signal

    def interrupt(now: str) -> None:
        if now == "sampled 2":
            os.kill(os.getpid(), signal.SIGINT)

    view = Watcher(interrupt)
    with pytest.raises(InterruptedRunError, match="stopped by SIGINT: 2 of 10 questions sampled") as caught:
        mine_pairs(document, OPTIONS, view)
    assert caught.value.exit_code == 130
    assert "the same command again" in caught.value.next_step
    assert "stopping" in view.notes
    assert len(mine_pairs(document, OPTIONS, Watcher()).result.pairs) >= 5


def test_a_judge_that_fails_loses_only_its_own_answers(
    document: Path, log: Path, view: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        mining, "make_judge", lambda spec, context: RuleJudge(log, fails=lambda number: number % 3 == 0)
    )
    result = mine_pairs(document, OPTIONS, view).result
    waiting = result.tally.judged + result.tally.judge_failed
    assert result.tally.judge_failed == waiting // 3
    assert result.tally.judge_calls == result.tally.judged + 2 * result.tally.judge_failed
    assert result.pairs
    failed = result.tally.judge_failed
    assert (
        f"the judge gave no score to {failed} of {waiting} answers; the first: it fell over" in view.warnings
    )
    with store_of(document) as store:
        for candidate in store.mining.candidates(result.run_id):
            if candidate.judge_error:
                assert candidate.judge_error == "it fell over"
                assert candidate.attempts == 2


def test_apply_writes_what_was_staged_and_again_changes_nothing(
    document: Path, log: Path, view: Watcher
) -> None:
    report = mine_pairs(document, options(apply=True, max_pairs=2), view)
    assert report.applied is not None
    assert len(report.applied.written) == 2
    mined = [section for section in load(document).sections if section.auto_mined]
    assert [section.provenance.mined_run_id for section in mined if section.provenance] == [1, 1]
    written = document.read_bytes()
    again = mine_pairs(document, options(apply=True, max_pairs=2), view)
    assert again.repeated
    assert document.read_bytes() == written


def test_hand_written_pairs_are_not_offered_again(document: Path, log: Path, view: Watcher) -> None:
    pair = mine_pairs(document, OPTIONS, view).result.pairs[0]
    with store_of(document) as store:
        (folder,) = (store.folder,)
    with sqlite3.connect(folder / "store.sqlite3") as database:  # as if it had never been mined
        database.execute("DELETE FROM staged_pairs")
    from dlm.document import append, render_preference, save

    read = load(document)
    save(document, append(read, render_preference([(pair.prompt, pair.rejected, pair.chosen)])), read.sha256)
    result = mine_pairs(document, options(seed=0, threshold=0.05), view).result
    assert frozenset((pair.prompt, pair.chosen, pair.rejected)) not in {
        frozenset((p.prompt, p.chosen, p.rejected)) for p in result.pairs
    }


def test_a_dry_run_writes_nothing(document: Path, log: Path, view: Watcher) -> None:
    home = Path(os.environ["DLM_HOME"])
    preview = dry_run(document, OPTIONS)
    assert not home.exists()
    assert not log.exists()
    assert [q.prompt for q in preview.questions] == [f"What is number {i}?" for i in range(10)]
    assert (preview.sampled, preview.judged, preview.run_id) == (0, 0, None)
    mine_pairs(document, OPTIONS, view)
    after = dry_run(document, OPTIONS)
    assert after.complete
    assert after.run_id == 1
    assert after.sampled == 30


def test_nothing_to_do_is_said(document: Path, view: Watcher, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has not been trained") as caught:
        mine_pairs(document, dataclasses.replace(OPTIONS, version=None), view)
    assert "dlm train" in caught.value.next_step
    head = document.read_text(encoding="utf-8").partition("::instruction::")[0]
    document.write_text(f"{head}Prose alone.\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no question"):
        mine_pairs(document, OPTIONS, view)
    file = tmp_path / "empty.txt"
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no question"):
        mine_pairs(document, options(questions_file=file), view)


def test_questions_without_room_are_left_out_and_said(
    document: Path, log: Path, view: Watcher, tmp_path: Path
) -> None:
    file = tmp_path / "questions.txt"
    file.write_text("Short?\n" + "very long " * 300 + "\n", encoding="utf-8")
    result = mine_pairs(document, options(questions_file=file), view).result
    assert result.tally.questions == 1
    assert any("questions.txt:2" in warning for warning in view.warnings)
    file.write_text("very long " * 300 + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match="too long"):
        mine_pairs(document, options(questions_file=file), view)


def test_a_second_mining_says_who_is_at_work(document: Path, log: Path, view: Watcher) -> None:
    with Home.open().store(DLM_ID) as store, store.lock("dlm train doc.dlm"), pytest.raises(LockedError):
        mine_pairs(document, OPTIONS, view)


def test_a_command_that_the_document_names_asks_first(document: Path, view: Watcher) -> None:
    text = document.read_text(encoding="utf-8").replace("\n---\n", "\njudge: cli:python score.py\n---\n", 1)
    document.write_text(text, encoding="utf-8")
    seen: list[Any] = []

    def refuse(argv: Any) -> None:
        seen.append(tuple(argv))
        raise ConsentError("no")

    with pytest.raises(ConsentError):
        mine_pairs(document, options(allow=refuse), view)
    assert seen == [("python", "score.py")]
    preview = dry_run(document, options(allow=refuse, judge="sway"))
    assert preview.judge == "sway"
    assert len(seen) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"samples": 1}, {"max_pairs": 0}, {"pairs_per_question": 0}, {"temperature": 0.0}, {"threshold": -1.0}, {"top_p": 0}],
)  # fmt: skip
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        MineSettings(**wrong)


def test_the_default_judge_scores_them_all(document: Path, view: Watcher) -> None:
    result = mine_pairs(document, OPTIONS, view).result
    assert result.judge == "sway"
    assert result.tally.judge_failed == 0
    assert result.tally.judged == 30 - result.tally.skipped_candidates.get("duplicate", 0) - (
        result.tally.skipped_candidates.get("malformed", 0)
    )


def check_kills(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Path, moments: list[str]
) -> None:
    """SIGKILL at each moment in turn, then to the end: the same pairs, and nobody was asked twice."""
    whole = mine_pairs(document, OPTIONS, Watcher())
    total = sum(asked(log).values())
    home = tmp_path / "killed"
    log.unlink()
    died = [mine_and_die(home, document, log, moment, SETTINGS) for moment in moments]
    assert died == [-9] * len(moments)
    monkeypatch.setenv("DLM_HOME", str(home))
    report = mine_pairs(document, OPTIONS, Watcher())
    assert texts(report) == texts(whole)
    assert report.result.tally.judge_calls == total
    assert sum(asked(log).values()) == total
    with store_of(document) as store:
        (run,) = store.runs.list()
        assert run.status == "complete"
        assert len(store.mining.candidates(run.id)) == 30


@pytest.mark.process
def test_two_kills(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    check_kills(document, tmp_path, monkeypatch, log, ["sampled 4", "judged 9"])


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    moments = [f"sampled {n}" for n in range(1, 11)] + ["judged 3"] * 5 + ["judged 2"] * 5
    check_kills(document, tmp_path, monkeypatch, log, moments)


def test_a_grader_knows_the_cases_that_a_file_holds_to_train_on(
    document: Path, view: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are what pairs are mined from; a suite of the file leaves them out."""
    contexts = []

    def made(spec: Any, context: Any) -> RuleJudge:
        contexts.append(context)
        return RuleJudge(document.parent / "judged.txt")

    monkeypatch.setattr(mining, "make_judge", made)
    cases = [
        {"prompt": "What is one?", "reference": "1", "split": "train"},
        {"prompt": "What is two?", "reference": "2"},
    ]
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    (document.parent / "cases.jsonl").write_text(lines, encoding="utf-8")
    (document.parent / "questions.txt").write_text("What is one?\n", encoding="utf-8")
    text = document.read_text(encoding="utf-8")
    document.write_text(
        text.replace("\n---\n", "\nevals: {sums: {cases: cases.jsonl}}\n---\n", 1), encoding="utf-8"
    )
    chosen = options(
        judge="grader:text_similarity", questions_file=document.parent / "questions.txt", samples=2
    )
    mine_pairs(document, chosen, view)
    assert contexts[0].cases["What is one?"].reference == "1"
