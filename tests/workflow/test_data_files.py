"""Import and export of a whole store: round trips, runs with their curves, what is known already."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.docs import page_data

from dlm import review
from dlm.curves import Series
from dlm.errors import DocumentError, UsageError
from dlm.store import Defaults, Home, NewSignal, RunSpec, SignalFilter, Store, count_signals, find_signals
from dlm.workflow.data_export import export_lines, write_export
from dlm.workflow.data_import import ImportReport, import_signals, read_data_file
from dlm.workflow.signals import refresh, stored_signals
from hostile_text import hostile, writable
from mined_pairs import mine

IDS = ("01J9Z3W5E8RT2Y4VQ7NDPXK6MA", "01J9Z3W5E8RT2Y4VQ7NDPXK6MB")
PAIR = "\n::preference::\n### Prompt\nWho?\n### Chosen\nEverybody.\n### Rejected\nNobody.\n"
EVERYTHING = SignalFilter(tab="", order="oldest")


class Place:
    """A document with its store."""

    def __init__(self, folder: Path, dlm_id: str, body: str = "\nSome prose.\n") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "notes.dlm"
        self.path.write_text(f"---\ndlm_id: {dlm_id}\nbase_model: pocket\n---\n{body}", encoding="utf-8")
        self.store: Store = Home.open(folder / "home").store(dlm_id)

    def take(self, lines: str) -> ImportReport:
        file = self.path.with_name("data.jsonl")
        file.write_text(lines, encoding="utf-8")
        return import_signals(self.store, self.path, [read_data_file(file, Defaults())])

    def give(self, wanted: SignalFilter = EVERYTHING, *, shape: str = "dlm", with_runs: bool = False) -> str:
        refresh(self.store, self.path)
        return "".join(export_lines(self.store, wanted, shape=shape, with_runs=with_runs))

    def signals(self) -> Counter[str]:
        found = find_signals(self.store.signals.index, EVERYTHING)
        return Counter(repr(astuple(NewSignal(*(getattr(one, n) for n in NewSignal.__dataclass_fields__)))) for one in found)  # fmt: skip

    def counts(self) -> list[int]:
        index = self.store.signals.index
        return [count_signals(index, SignalFilter(tab)) for tab in ("preference", "reward", "dpo", "orpo")]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Place, Place]]:
    made = Place(tmp_path / "a", IDS[0]), Place(tmp_path / "b", IDS[1])
    yield made
    for place in made:
        place.store.close()


texts = writable | hostile.filter(bool)
signal = st.builds(
    lambda source, prompt, chosen, rejected, score, scale, time: (
        NewSignal("pair", source, prompt, chosen, rejected, score, -1.5, scale, created_at=time)
        if chosen != rejected
        else NewSignal("scalar", source, prompt, chosen, chosen_score=score, scale=scale, created_at=time)
    ),
    st.sampled_from(["hand", "mined", "vote", "grader", "experiment"]),
    texts,
    texts,
    texts,
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "1-10"]),
    st.sampled_from(["2026-04-23T18:42:11.042Z", "2026-04-23T18:42:12Z"]),
)


@settings(max_examples=15)
@given(st.lists(signal, min_size=1, max_size=8))
def test_import_of_an_export_is_the_same_store(
    tmp_path_factory: pytest.TempPathFactory, signals: list[NewSignal]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    first, second = Place(folder / "a", IDS[0]), Place(folder / "b", IDS[1])
    try:
        first.store.signals.add(signals)
        exported = first.give()
        second.take(exported)
        assert second.signals() == first.signals()
        assert second.give() == exported
        assert not second.take(exported).changed
    finally:
        first.store.close()
        second.store.close()


def test_the_page_s_data_comes_in_and_goes_out_whole(places: tuple[Place, Place]) -> None:
    first, second = places
    lines = "".join(json.dumps(line) + "\n" for line in page_data.lines())
    report = first.take(lines)
    assert (report.points, report.runs) == (4 * 2145 + 4 * 120, {1: "dpo-1", 2: "orpo-1"})
    assert first.counts() == [163, 76, 3, 40]
    run = first.store.runs.get(1)
    assert (run.method, run.status, run.planned_steps) == ("dpo", "complete", 1938)
    loss = first.store.metrics.read(1)["train_loss"]
    assert len(loss) == 2145
    assert loss.times[-1] - loss.times[0] == pytest.approx(39 * 60, abs=2)
    assert first.store.signals.used_by([2])[2] == (1, 2)
    exported = first.give(with_runs=True)
    assert second.take(exported).points == report.points
    assert second.counts() == first.counts()
    assert second.signals() == first.signals()
    assert second.give(with_runs=True) == exported
    again = first.take(exported)
    assert (again.changed, again.known, again.known_runs) == (False, 242, {1: "dpo-1", 2: "orpo-1"})


def test_drift_is_flagged_in_the_page_s_data(places: tuple[Place, Place]) -> None:
    first, _ = places
    first.take("".join(json.dumps(line) + "\n" for line in page_data.lines()))
    flagged = {
        one.prompt for one in find_signals(first.store.signals.index, SignalFilter(flag="topic_drift"))
    }
    drifting = {pair.prompt for pair in page_data.pairs(163) if pair.drifts}
    assert "Research best practices for reducing latency in REST APIs." in flagged
    assert flagged <= drifting
    assert len(flagged) >= 0.9 * len(drifting)


def test_everything_a_store_knows_goes_to_another(tmp_path: Path) -> None:
    first, second = Place(tmp_path / "a", IDS[0], PAIR), Place(tmp_path / "b", IDS[1])
    store = first.store
    pair = mine(store, first.path)[0]
    review.apply(store, first.path, [pair.id])
    store.signals.vote("Who?", "Everybody.", 1)
    only = NewSignal("pair", "hand", "Gone?", "Yes.", "No.")
    run = store.runs.record(
        RunSpec("preference", "orpo", {"lr": 1e-3}, seed=3), status="failed", message="so"
    )
    values = np.array([1.0, np.nan, np.inf])
    store.metrics.add_series(
        run.id, Series("train_loss", "nats", np.array([1, 2, 9]), values, values * np.nan)
    )
    store.signals.log_use(run.id, [only])
    refresh(store, first.path)
    exported = first.give(with_runs=True)
    report = second.take(exported)
    assert report.added == {"pair hand": 1, "pair mined": 3, "scalar vote": 1}
    assert report.only_used == 1
    assert second.counts() == first.counts() == [4, 1, 0, 1]
    (number,) = report.runs
    there = second.store.runs.get(number)
    assert (there.method, there.status, there.message, there.seed, dict(there.recipe)) == ("orpo", "failed", "so", 3, {"lr": 1e-3})  # fmt: skip
    loss = second.store.metrics.read(number)["train_loss"]
    assert loss.values.tolist()[0] == 1.0
    assert np.isnan(loss.values[1])
    assert np.isinf(loss.values[2])
    assert first.take(exported).changed is False  # our own run is known by its number and start
    first.store.close()
    second.store.close()


def test_a_document_pair_that_comes_back_is_not_stored(tmp_path: Path) -> None:
    place = Place(tmp_path / "a", IDS[0], PAIR)
    assert place.take(place.give()).changed is False
    assert stored_signals(place.store).pairs == ()
    place.path.write_text(place.path.read_text(encoding="utf-8").replace(PAIR, ""), encoding="utf-8")
    assert place.give() == ""
    place.store.close()


def test_a_document_with_problems_keeps_the_pairs_it_had(tmp_path: Path) -> None:
    place = Place(tmp_path / "a", IDS[0], PAIR)
    assert refresh(place.store, place.path).current
    place.path.write_text(
        place.path.read_text(encoding="utf-8") + "\n::preference::\n### Prompt\n", encoding="utf-8"
    )
    assert not refresh(place.store, place.path).current
    assert place.counts()[0] == 1
    place.store.close()


def test_bad_lines_are_named_and_nothing_is_written(places: tuple[Place, Place]) -> None:
    first, _ = places
    good = '{"type": "pair", "prompt": "p", "chosen": "c", "rejected": "r"'
    lines = [
        good + "}",
        "{",
        good + ', "used_by": ["a"]}',
        '{"type": "scalar"}',
        '{"type": "series", "run": "b", "name": "loss", "steps": [1], "values": [1]}',
    ]
    with pytest.raises(DocumentError) as caught:
        first.take("\n".join(lines))
    assert [problem.line for problem in caught.value.problems] == [2, 4]
    with pytest.raises(DocumentError) as caught:
        first.take("\n".join([lines[0], lines[2], lines[4]]))
    assert [problem.line for problem in caught.value.problems] == [2, 3]
    assert "data.jsonl:2:1: used_by: no line describes the run 'a'" in str(caught.value)
    run = '{"type": "run", "ref": "a", "kind": "sft"}'
    with pytest.raises(DocumentError, match="there is a run"):
        first.take(f"{run}\n{run}")
    assert first.counts() == [0, 0, 0, 0]
    with pytest.raises(UsageError, match="holds no signals"):
        first.take("\n\n")


def test_the_shapes_of_other_tools_come_back_too(places: tuple[Place, Place]) -> None:
    first, second = places
    store = first.store
    store.signals.add([NewSignal("pair", "hand", "p", "c", "r", 2.0, 1.0), NewSignal("scalar", "grader", "p", "a", chosen_score=3.0)])  # fmt: skip
    store.signals.vote("p", "b", -1)
    item = json.loads(first.give(SignalFilter(), shape="openai"))
    assert item["preferred_output"] == [{"role": "assistant", "content": "c"}]
    with pytest.raises(UsageError, match="pairs only"):
        first.give(shape="openai")
    lines = "".join(export_lines(store, EVERYTHING, shape="trl", system_prompt="Be brief."))
    assert [json.loads(line)["prompt"][0]["role"] for line in lines.splitlines()] == ["system"] * 3
    with pytest.raises(DocumentError, match="system"):
        second.take(lines)  # a document has one system prompt, its own
    plain = first.give(shape="trl")
    assert second.take(plain).added == {"pair hand": 1, "scalar hand": 1, "scalar vote": 1}
    assert json.loads(plain.splitlines()[0])["chosen_score"] == 2.0


def test_csv_is_for_looking_and_runs_nothing(places: tuple[Place, Place]) -> None:
    first, _ = places
    first.store.signals.add([NewSignal("pair", "hand", "=HYPERLINK(1)", "a\nb", '@x,"y"', 2.0, -1.0)])
    (row,) = csv.DictReader(first.give(shape="csv").splitlines(keepends=True))
    assert row["prompt"] == "'=HYPERLINK(1)"
    assert row["rejected"] == '\'@x,"y"'
    assert row["chosen"] == "a\nb"
    assert (row["rejected_score"], row["margin"]) == ("-1.0", "3.0")


def test_a_file_is_written_whole_or_not_at_all(places: tuple[Place, Place], tmp_path: Path) -> None:
    first, _ = places
    first.store.signals.add([NewSignal("pair", "hand", "p", "c", "r")])
    target = tmp_path / "out.jsonl"

    def write(wanted: SignalFilter = EVERYTHING, *, force: bool = False, shape: str = "dlm") -> None:
        write_export(
            first.store, wanted, target, shape=shape, system_prompt=None, with_runs=False, force=force
        )

    with pytest.raises(UsageError, match="nothing to export"):
        write(replace(EVERYTHING, search="absent"))
    assert not target.exists()
    write()
    with pytest.raises(UsageError, match="there already"):
        write()
    link = tmp_path / "link.jsonl"
    link.symlink_to(target)
    write_export(first.store, EVERYTHING, link, shape="csv", system_prompt=None, with_runs=False, force=True)
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8").startswith("id,kind")
    with pytest.raises(UsageError, match="runs are written"):
        first.give(shape="csv", with_runs=True)
    target = tmp_path / "no" / "out.jsonl"
    with pytest.raises(UsageError, match="cannot write"):
        write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "link.jsonl", "out.jsonl"]
