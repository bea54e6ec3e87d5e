"""Suites as a document names them: what is proven on, and what is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dlm.document import new_document, parse
from dlm.errors import UsageError
from dlm.evaluation import parse_condition, read_suite, taught
from dlm.workflow.gating import gate_hash, read_gate


def test_the_suite_of_a_new_document_is_one_that_there_is() -> None:
    """Whoever takes the marks away from a new document's `evals` and `gate` can use them."""
    text = re.sub(r"(?m)^# (?=(evals|gate):| {2,}(tables|stress|conditions):)", "", new_document())
    document = parse(text)
    suite = read_suite(document, Path(), "tables")
    assert (len(suite.cases), suite.grader.text, suite.max_new_tokens) == (50, "spreadsheet:strict", 512)
    assert document.header.gate is not None
    conditions, suites = read_gate(document, Path("new.dlm"))
    asked = set[str]().union(*(one.suites for one in conditions))
    assert asked == {one.name for one in suites} >= {"tables", "stress"}  # what is not there could never pass
    assert "does not have yet" not in text
    shown = re.search(r"or lines: (.*)", text)
    assert shown
    assert parse_condition(shown[1], ("tables",)).relative


def test_what_a_file_holds_to_train_on_proves_no_version(tmp_path: Path) -> None:
    """A suite of a file without a split would ask the gate about the very cases that `--phase rft` trains on."""
    lines = [{"prompt": f"q{n}", "reference": "r", **({"split": split} if split else {})}
             for n, split in enumerate(("train", "hard_train", "heldout", None))]  # fmt: skip
    (tmp_path / "cases.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    head = (
        "---\ndlm_id: 01HZX4TGZ5W2G9JXQ9A6T3K4VB\nbase_model: pocket\nevals:\n  {}\ngate: {{}}\n---\ntext\n"
    )
    suite = "  drill: {cases: cases.jsonl, split: train}"
    document = parse(head.format("mine: {cases: cases.jsonl}\n" + suite))
    found = read_suite(document, tmp_path, "mine")
    assert ([case.prompt for case in found.cases], found.practice) == (["q2", "q3"], False)
    watched = read_suite(document, tmp_path, "drill")
    assert ([case.prompt for case in watched.cases], watched.practice) == (["q0"], True)
    conditions, suites = read_gate(document, tmp_path / "a.dlm")
    assert [one.text for one in conditions] == ["no regression on mine.score"]
    assert [one.name for one in suites] == ["mine"]
    (tmp_path / "cases.jsonl").write_text(json.dumps(lines[0]), encoding="utf-8")
    with pytest.raises(UsageError, match="every case of the file is there to be trained on"):
        read_suite(document, tmp_path, "mine")


def test_prompts_of_a_suite_that_the_document_trains_on_are_found(tmp_path: Path) -> None:
    lines = [{"prompt": "Why?"}, {"prompt": "How?"}, {"prompt": "When?"}]
    (tmp_path / "cases.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    text = (
        "---\ndlm_id: 01HZX4TGZ5W2G9JXQ9A6T3K4VB\nbase_model: pocket\nevals:\n  mine: {cases: cases.jsonl}\n---\n"
        "::instruction::\n### Q\nWhy?\n### A\nSo.\n### Q !probe\nHow?\n### A\nThus.\n### Q\nWho?\n### A\nI.\n"
        "::preference::\n### Prompt\nWhen?\n### Chosen\nNow.\n### Rejected\nNever.\n"
    )
    document = parse(text)
    found = taught(document, read_suite(document, tmp_path, "mine"))
    assert [text.splitlines()[line] for line in found] == [
        "Why?",
        "When?",
    ]  # a marker's line, and the next one
    assert taught(document, read_suite(document, tmp_path, "probes")) == []


def test_the_order_of_suites_is_part_of_what_a_verdict_means(tmp_path: Path) -> None:
    """The usual conditions ask the first suite of tables: in another order they are other conditions."""
    head = "---\ndlm_id: 01HZX4TGZ5W2G9JXQ9A6T3K4VB\nbase_model: pocket\nevals:\n{}gate: {{}}\n---\ntext\n"
    short, long = "  short: {task: spreadsheet, n: 1}\n", "  long: {task: spreadsheet, n: 2}\n"
    one, other = (parse(head.format(suites)) for suites in (short + long, long + short))
    asked = [read_gate(document, tmp_path / "a.dlm")[0][0].text for document in (one, other)]
    assert asked == ["short.composite >= base - 0.005", "long.composite >= base - 0.005"]
    assert gate_hash(one, tmp_path) != gate_hash(other, tmp_path)


def test_a_suite_named_as_the_held_out_loss_is_refused_beside_a_gate(tmp_path: Path) -> None:
    """Every condition on it was missing, the usual one too, so that no version passed."""
    head = "---\ndlm_id: 01HZX4TGZ5W2G9JXQ9A6T3K4VB\nbase_model: pocket\nevals:\n  validation: {task: spreadsheet}\n"
    with pytest.raises(UsageError, match="cannot be named validation"):
        read_gate(parse(head + "gate: {}\n---\ntext\n"), tmp_path / "a.dlm")
