"""Pairs into the document and out again: exact, once, and never over somebody else's edit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dlm import review
from dlm.document import load, parse, save
from dlm.errors import ConflictError, CopiedDocumentError, DlmError, DocumentError, UsageError
from dlm.store import Home, StagedPair, Store
from mined_pairs import TEXTS, mine

from .conftest import BODY, DLM_ID, HEADER

Staged = tuple[StagedPair, ...]

FIELDS = {"judge_name", "judge_score_chosen", "judge_score_rejected", "mined_at", "mined_run_id"}


def statuses(store: Store) -> list[str]:
    return [pair.status for pair in store.mining.pairs()]


def mined_triples(document: Path) -> list[tuple[str, str, str]]:
    return [
        (triple.prompt, triple.chosen, triple.rejected)
        for section in load(document).sections
        if section.auto_mined
        for triple in section.triples
    ]


def test_what_is_written(store: Store, document: Path, staged: Staged) -> None:
    before = document.read_bytes()
    report = review.apply(store, document)
    after = document.read_bytes()
    assert after.startswith(before)
    sections = load(document).sections
    new = sections[3:]
    assert [len(section.triples) for section in new] == [1, 1, 1]
    assert mined_triples(document) == list(TEXTS)
    for section, pair in zip(new, staged, strict=True):
        assert section.provenance is not None
        assert set(section.provenance.values) == FIELDS
        assert section.provenance.values["judge_name"] == pair.judge_name
        assert section.provenance.mined_run_id == pair.run_id
    assert [(w.pair_id, w.section_id, w.line) for w in report.written] == [
        (pair.id, section.id, section.line) for pair, section in zip(staged, new, strict=True)
    ]
    assert report.document_sha256 == load(document).sha256
    assert [pair.section_id for pair in store.mining.pairs()] == [section.id for section in new]
    assert statuses(store) == ["applied"] * 3


def test_apply_revert_apply_comes_back_to_the_same_bytes(
    store: Store, document: Path, staged: Staged
) -> None:
    before = document.read_bytes()
    review.apply(store, document)
    after = document.read_bytes()
    again = review.apply(store, document)  # twice changes nothing
    assert (again.written, again.already) == ((), (1, 2, 3))
    assert document.read_bytes() == after
    reverted = review.revert(store, document)
    assert [written.pair_id for written in reverted.removed] == [1, 2, 3]
    assert document.read_bytes() == before
    assert statuses(store) == ["reverted"] * 3
    with pytest.raises(UsageError, match="3 reverted") as caught:
        review.apply(store, document)  # not offered again by itself
    assert "apply DOCUMENT 1 2 3" in caught.value.next_step
    review.apply(store, document, [1, 2, 3])
    assert document.read_bytes() == after
    review.revert(store, document, batch=staged[0].run_id)
    assert document.read_bytes() == before
    with pytest.raises(UsageError, match="nothing to revert"):
        review.revert(store, document)


def test_accepted_pairs_alone_where_there_are_some(store: Store, document: Path, staged: Staged) -> None:
    review.accept(store, [2])
    report = review.apply(store, document)
    assert ([w.pair_id for w in report.written], report.waiting) == ([2], (1, 3))
    after = document.read_bytes()
    again = review.apply(store, document)  # what was left is not written by saying the same again
    assert (again.written, again.already, again.waiting) == ((), (2,), (1, 3))
    assert document.read_bytes() == after
    (new,) = mine(store, document, [("p2", "c2", "r2")])
    assert [w.pair_id for w in review.apply(store, document).written] == [new.id]
    review.reject(store, [3])
    report = review.apply(store, document, [1, 2, 2])
    assert ([w.pair_id for w in report.written], report.already, report.waiting) == ([1], (2,), ())
    with pytest.raises(UsageError, match="pair 3: it was rejected; accept it first"):
        review.apply(store, document, [3])


def test_what_was_left_is_named_when_nothing_else_is_there(
    store: Store, document: Path, staged: Staged
) -> None:
    review.accept(store, [1])
    review.apply(store, document)
    review.revert(store, document)
    with pytest.raises(UsageError, match="2 staged and 1 reverted") as caught:
        review.apply(store, document)
    assert "accept DOCUMENT" in caught.value.next_step
    assert review.accept(store).changed == (2, 3)
    assert len(review.apply(store, document).written) == 2


def test_a_batch_is_applied_and_reverted_by_itself(store: Store, document: Path, staged: Staged) -> None:
    (other,) = mine(store, document, [("p2", "c2", "r2")])
    review.apply(store, document, batch=other.run_id)
    assert mined_triples(document) == [("p2", "c2", "r2")]
    one = document.read_bytes()
    review.apply(store, document)
    review.revert(store, document, batch=staged[0].run_id)
    assert document.read_bytes() == one
    with pytest.raises(UsageError, match="no pair of batch 1 is in the document"):
        review.revert(store, document, batch=staged[0].run_id)


def test_nothing_to_apply_says_why(store: Store, document: Path) -> None:
    with pytest.raises(UsageError, match="no pairs have been mined") as caught:
        review.apply(store, document)
    assert "mine DOCUMENT" in caught.value.next_step
    mine(store, document)
    review.reject(store)
    with pytest.raises(UsageError, match="3 rejected"):
        review.apply(store, document)


def test_moved_sections_are_found_and_other_ids_stay(store: Store, document: Path, staged: Staged) -> None:
    review.apply(store, document)
    text = document.read_text()
    sections = load(document).sections
    first = text[slice(*sections[3].span)]
    moved = text.replace(first, "")
    place = moved.index("::instruction::")
    document.write_text(moved[:place] + first + moved[place:])
    others = [s.id for s in load(document).sections if not s.auto_mined]
    report = review.revert(store, document, [1, 3])
    assert len(report.removed) == 2
    kept = load(document).sections
    assert [s.id for s in kept if not s.auto_mined] == others
    assert mined_triples(document) == [TEXTS[1]]
    assert HEADER + BODY in document.read_text()


def test_a_section_edited_by_hand_is_left_unless_forced(store: Store, document: Path, staged: Staged) -> None:
    review.apply(store, document)
    edited = document.read_text().replace("Whoever comes first.", "Whoever comes first, says Ada.")
    document.write_text(edited)
    assert review.apply(store, document).already == (1, 2, 3)  # not written a second time
    line = load(document).sections[4].line
    report = review.revert(store, document)
    assert [w.pair_id for w in report.removed] == [1, 3]
    assert [w.pair_id for w in report.edited] == [2]
    assert report.edited[0].line == line
    assert mined_triples(document) == [(TEXTS[1][0], "Whoever comes first, says Ada.", TEXTS[1][2])]
    with pytest.raises(UsageError, match=r"edited by hand.*pair 2 at line \d+") as caught:
        review.revert(store, document)
    assert "--force" in caught.value.next_step
    assert statuses(store) == ["reverted", "applied", "reverted"]
    review.revert(store, document, force=True)
    assert document.read_text() == HEADER + BODY
    assert statuses(store) == ["reverted"] * 3


def test_each_edited_section_is_its_own_pairs(store: Store, document: Path) -> None:
    """The provenance of both is equal; what is left of the texts tells them apart."""
    mine(store, document, TEXTS[:2], scores=(1.0, 0.0))
    review.apply(store, document)
    text = document.read_text()
    document.write_text(text.replace(TEXTS[0][1], "New one.").replace(TEXTS[1][1], "New two."))
    report = review.revert(store, document, [2], force=True)
    assert [w.pair_id for w in report.removed] == [2]
    assert mined_triples(document) == [(TEXTS[0][0], "New one.", TEXTS[0][2])]


def test_a_section_cut_out_by_hand_counts_as_reverted_when_asked(
    store: Store, document: Path, staged: Staged
) -> None:
    review.apply(store, document)
    document.write_text(HEADER + BODY)
    review.reconcile(store, document)
    assert statuses(store) == ["applied"] * 3  # an older state of the file may come back
    assert review.apply(store, document).already == (1, 2, 3)
    assert document.read_text() == HEADER + BODY
    report = review.revert(store, document, [1])
    assert (report.removed, report.gone) == ((), (1,))
    assert statuses(store) == ["reverted", "applied", "applied"]
    assert [w.pair_id for w in review.apply(store, document, [2]).written] == [2]


def test_a_reverted_section_pasted_back_is_known_and_goes_again(
    store: Store, document: Path, staged: Staged
) -> None:
    review.apply(store, document)
    after = document.read_bytes()
    review.revert(store, document)
    document.write_bytes(after)
    review.reconcile(store, document)
    assert statuses(store) == ["reverted"] * 3
    assert review.reverted_keys(store) == {pair.content_key for pair in staged}
    assert len(review.revert(store, document).removed) == 3
    assert document.read_text() == HEADER + BODY


def test_what_the_document_says_already_is_not_said_twice(store: Store, document: Path) -> None:
    mine(store, document, [("p", "c", "r"), ("p", "c2", "r")])
    mine(store, document, [("p", "c2", "r")])
    report = review.apply(store, document)
    assert [w.pair_id for w in report.written] == [2]
    line = next(triple.line for section in load(document).sections for triple in section.triples)
    assert [(item.pair_id, item.reason) for item in report.left_out] == [
        (1, f"the document says the same already, at line {line}"),
        (3, "it says the same as pair 2"),
    ]


def test_the_plan_shows_what_apply_writes(store: Store, document: Path, staged: Staged) -> None:
    before = document.read_bytes()
    plan = review.plan_apply(store, document, [1, 3])
    assert document.read_bytes() == before
    assert statuses(store) == ["staged"] * 3
    review.carry_out(store, plan)
    assert document.read_text() == plan.text
    assert statuses(store) == ["applied", "staged", "applied"]


def test_an_editors_save_between_plan_and_apply_is_kept(store: Store, document: Path, staged: Staged) -> None:
    plan = review.plan_apply(store, document)
    saved = HEADER + BODY + "\nMore, in an editor.\n"
    document.write_text(saved)
    with pytest.raises(ConflictError, match="nothing was written"):
        review.carry_out(store, plan)
    assert document.read_text() == saved
    assert statuses(store) == ["staged"] * 3
    review.apply(store, document)
    assert document.read_text().startswith(saved)


@pytest.mark.parametrize("command", ["apply", "revert"])
def test_an_editors_save_at_the_last_moment_is_kept(
    command: str, store: Store, document: Path, staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command == "revert":
        review.apply(store, document)
    before = statuses(store)
    saved = document.read_bytes() + b"\n::prose::\nMore.\n"

    def late(path: Path, text: str, sha256: str) -> str:
        document.write_bytes(saved)
        return save(path, text, sha256)

    with monkeypatch.context() as patch:
        patch.setattr("dlm.review.applying.save", late)
        with pytest.raises(ConflictError):
            getattr(review, command)(store, document)
    assert document.read_bytes() == saved
    assert statuses(store) == before
    getattr(review, command)(store, document)
    assert b"More." in document.read_bytes()
    assert statuses(store) == [{"apply": "applied", "revert": "reverted"}[command]] * 3


def test_a_pair_decided_on_between_plan_and_apply_stops_it(
    store: Store, document: Path, staged: Staged
) -> None:
    before = document.read_bytes()
    for decide in (lambda: review.reject(store, [2]), lambda: review.edit(store, 1, chosen="other")):
        plan = review.plan_apply(store, document)
        decide()
        with pytest.raises(ConflictError, match="pair"):
            review.carry_out(store, plan)
    assert document.read_bytes() == before


def test_a_document_with_problems_is_left_alone(store: Store, document: Path, staged: Staged) -> None:
    broken = HEADER + BODY + "\n```\nnever closed\n"
    document.write_text(broken)
    for command in (review.apply, review.revert):
        with pytest.raises(DocumentError):
            command(store, document)
    assert document.read_text() == broken


def test_a_copy_of_the_document_is_refused(store: Store, document: Path, staged: Staged) -> None:
    copy = document.with_name("copy.dlm")
    copy.write_bytes(document.read_bytes())
    for command in (review.apply, review.revert):
        with pytest.raises(CopiedDocumentError):
            command(store, copy)
    assert copy.read_bytes() == document.read_bytes()


@pytest.mark.big
def test_a_document_never_grows_past_what_can_be_read(store: Store, document: Path) -> None:
    before = document.read_bytes()
    mine(store, document, [(f"q{n}", "c" * 17_000_000, "r") for n in range(4)])
    with pytest.raises(DlmError, match="these 4 pairs"):
        review.apply(store, document)
    assert document.read_bytes() == before
    assert statuses(store) == ["staged"] * 4


HALVES = {
    "apply": "review.apply(store, path)",
    "revert": "review.revert(store, path)",
}


def die_between(document: Path, home: Path, command: str) -> None:
    """Run a command in a process that is killed after the file was replaced and before the store knows."""
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from dlm import review\nfrom dlm.store import Home, Mining\n"
        "path = Path(sys.argv[1])\nstore = Home.open(Path(sys.argv[2])).store(sys.argv[3])\n"
        "before = path.read_bytes()\n"
        "def die(*_, **__):\n"
        "    if path.read_bytes() != before:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Mining.set_status = die\n" + HALVES[command]
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(document), str(home), DLM_ID],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_between_file_and_store_an_apply_is_recorded_by_the_next_command(
    store: Store, document: Path, staged: Staged, tmp_path: Path
) -> None:
    review.accept(store, [1, 3])
    die_between(document, tmp_path / "home", "apply")
    assert mined_triples(document) == [TEXTS[0], TEXTS[2]]
    assert statuses(store) == ["accepted", "staged", "accepted"]
    review.reconcile(store, document)
    assert statuses(store) == ["applied", "staged", "applied"]
    section_ids = [section.id for section in load(document).sections[3:]]
    assert [store.mining.pair(1).section_id, store.mining.pair(3).section_id] == section_ids
    review.revert(store, document)
    assert document.read_text() == HEADER + BODY


def test_killed_between_file_and_store_a_revert_is_recorded_by_the_next_command(
    store: Store, document: Path, staged: Staged, tmp_path: Path
) -> None:
    review.apply(store, document)
    die_between(document, tmp_path / "home", "revert")
    assert document.read_text() == HEADER + BODY
    assert statuses(store) == ["applied"] * 3
    with pytest.raises(UsageError, match="3 reverted"):
        review.apply(store, document)
    assert statuses(store) == ["reverted"] * 3


def test_two_applies_at_once_write_each_pair_once(document: Path, tmp_path: Path, store: Store) -> None:
    for round_number in range(5):
        mine(store, document, [(f"q{round_number}", f"c{n}", "r") for n in range(3)])
        barrier = threading.Barrier(2)

        def one(barrier: threading.Barrier = barrier) -> review.ApplyReport:
            with Home.open(tmp_path / "home").store(DLM_ID) as mine_own:
                barrier.wait()
                return review.apply(mine_own, document)

        with ThreadPoolExecutor(2) as pool:
            reports = [task.result() for task in (pool.submit(one), pool.submit(one))]
        assert sorted(len(report.written) for report in reports) == [0, 3]
    assert len(mined_triples(document)) == len(set(mined_triples(document))) == 15
    assert statuses(store) == ["applied"] * 15


def test_a_store_that_cannot_be_written_is_still_looked_at(
    store: Store, document: Path, staged: Staged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    review.apply(store, document)
    with store.mining.exclusively():
        store.mining.set_status([1], "staged")
    store.close()

    def refuse(path: object, mode: int) -> bool:
        return False

    monkeypatch.setattr("dlm.store.database.os.access", refuse)
    with Home.open(tmp_path / "home").find(DLM_ID) as found:  # type: ignore[union-attr]
        _, places = review.reconcile(found, document)
        assert set(places.exact) == {1, 2, 3}
        assert found.mining.pair(1).status == "staged"


def test_a_linked_or_crlf_document_stays_one(store: Store, document: Path, staged: Staged) -> None:
    document.write_bytes((HEADER + BODY).replace("\n", "\r\n").encode())
    link = document.with_name("link.dlm")
    os.symlink(document, link)
    before = document.read_bytes()
    review.apply(store, link)
    after = document.read_bytes()
    assert link.is_symlink()
    assert after.count(b"\n") == after.count(b"\r\n") > before.count(b"\n")
    assert [s.id for s in parse(after).sections][:3] == [s.id for s in parse(before).sections]
    review.revert(store, link)
    assert document.read_bytes() == before
