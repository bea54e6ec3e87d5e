"""`dlm eval`, `dlm gate` and `dlm grader` as commands: what they print, their exit codes, their JSON against the schemas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlm.cli.commands.eval import _interval as interval
from dlm.cli.commands.grader import testing
from dlm.errors import UsageError
from dlm.stats import mean

from .conftest import BODY, HEADER, Dlm
from .test_schemas import validate

EVALS = (
    "evals:\n  tables:\n    task: spreadsheet\n    n: 2\n  stress:\n    task: spreadsheet\n    split: stress_heldout\n"
    "    n: 1\n    max_new_tokens: 100\ngate:\n  conditions:\n    - best of tables.score, tables.pass_rate>=0.5\n    - stress.data_preservation >= 0.85\n"
    "    - tables.row_precision >= base - 1\n"
)
RUBRIC = "def grade(sample, item):\n    return float(sample['output_text'] == item['reference'])\n"


@pytest.fixture
def gated() -> Path:
    path = Path("sheets.dlm")
    path.write_text(
        HEADER.replace("base_model: pocket\n", f"base_model: pocket\n{EVALS}") + BODY, encoding="utf-8"
    )
    return path


@pytest.mark.torch
def test_eval_and_gate_from_the_first_look_to_the_verdict(dlm: Dlm, gated: Path) -> None:
    gold = validate(dlm.json("eval", str(gated), "--gold"))
    assert gold["ceilings"]["tables"]["reachable"] == 2
    assert [one["condition"] for one in gold["unreachable"]] == ["stress.data_preservation >= 0.85"]
    text = dlm("eval", str(gated), "--gold").stdout
    assert "references that fit  0 of 1" in text
    assert (
        "UNREACHABLE  stress.data_preservation >= 0.85: stress.data_preservation needs 0.8500, and the"
        in text
    )
    ask = "dlm eval sheets.dlm --suite tables --version base"
    assert f"what is asked against base in tables is known after {ask}\n" in text
    result = dlm("eval", str(gated), "--suite", "tables", "--answers", "answers.jsonl")
    assert result.stdout.startswith("tables: base, run 1\n")
    assert "data_preservation  " in result.stdout
    lines = [json.loads(line) for line in Path("answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["suite"], line["case_index"]) for line in lines] == [("tables", 0), ("tables", 1)]
    assert "nothing is asked again" in dlm("eval", str(gated), "--suite", "tables").stderr
    found = validate(dlm.json("eval", str(gated), "--suite", "tables", "--why"))
    assert (found["evaluations"][0]["repeated"], found["evaluations"][0]["answers"]) == (True, 2)

    trained = validate(dlm.json("train", str(gated), "--max-steps", "1", "--device", "cpu", expect=3))
    assert trained["gate"]["verdict"] == "unreachable"
    assert [one["status"] for one in trained["gate"]["conditions"]] == ["PASS", "UNREACHABLE", "PASS"]
    asked = validate(dlm.json("gate", str(gated), "--no-eval", expect=3))
    assert (asked["candidate"], asked["baseline"], asked["lineage"]) == ("v0001", "base", ["v0001"])
    assert asked["settings"] == trained["gate"]["settings"]
    made = asked["settings"]["stress"]
    assert made == {"temperature": 0, "top_p": 1, "repeats": 1, "seed": 0, "max_new_tokens": 100}
    assert "is known after" not in dlm("eval", str(gated), "--gold").stdout
    text = dlm("gate", str(gated), expect=3).stdout
    assert "greedy, one a case, at most tokens: 256 in tables, 100 in stress" in text
    assert "raise the suite's max_new_tokens" in text
    assert "PASS         best of 2 >= 0.5: tables.score" in text  # however it was spaced
    assert text.startswith("v0001 against base: UNREACHABLE\n")
    assert "no failure of the model" in text
    runs = validate(dlm.json("show", str(gated)))["runs"]
    assert [(run["kind"], run["steps"]) for run in runs] == [
        (run["kind"], run["planned_steps"]) for run in runs
    ]
    refused = dlm("promote", str(gated), "v0001", expect=3).stderr
    assert "has not passed the document's gate" in refused
    dlm("promote", str(gated), "v0001", "--force", "--reason", "a look")
    both = dlm("eval", str(gated), "--suite", "tables", "--version", "base", "--version", "v0001").stdout
    assert "tables, side by side" in both
    advice = validate(dlm.json("diagnose", str(gated), "--evals"))["advice"]
    assert {(one["version"], one["suite"], one["decided"]) for one in advice} == {
        ("v0001", "stress", "nowhere")
    }
    assert "by no model: budget, references or grader" in dlm("diagnose", str(gated), "--evals").stdout
    judged = dlm(
        "preference",
        "mine",
        str(gated),
        "--judge",
        "grader:length:1-5",
        "--samples",
        "2",
        "--max-new-tokens",
        "8",
    ).stdout
    assert "with grader:length:1-5 words" in judged


def test_one_case_has_no_interval() -> None:
    one, two = (mean([0.73] * n) for n in (1, 2))
    assert (interval("score", one), interval("score", two)) == ("–", "0.7300–0.7300")


def test_errors_of_eval_and_gate(dlm: Dlm, document: Path) -> None:
    pytest.importorskip("torch")
    assert "no suite to evaluate" in dlm("eval", str(document), expect=2).stderr
    assert "not been trained" in dlm("gate", str(document), expect=1).stderr
    assert "greedy" in dlm("eval", str(document), "--repeats", "2", "--temp", "0", expect=2).stderr


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("task: spreadsheet\n    n: 2", "task: sheets", "7:5: there is no task 'sheets'"),
        ("    n: 2", "    grader: python:gone.py", "7:5: gone.py: the grader's file is not there [suite]"),
        (
            "task: spreadsheet\n    n: 2",
            "cases: gone.jsonl",
            "7:5: gone.jsonl: cannot read the file of cases",
        ),
        (
            "task: spreadsheet\n    n: 2",
            "cases: bad.jsonl",
            "7:5: bad.jsonl:1: expected a JSON object with a prompt, and at will reference, facts (an object), split and id, and 2 more lines [suite]",
        ),
        ("base - 1", "bases - 1", "18:7: the gate's condition cannot be read; found 'tables.row_precision"),
        ("n: 2", "n: 3", "no problems"),
    ],
)
def test_check_reads_suites_and_gate(dlm: Dlm, gated: Path, old: str, new: str, told: str) -> None:
    text = gated.read_text(encoding="utf-8")
    assert text.count(old) == 1
    gated.write_text(text.replace(old, new), encoding="utf-8")
    Path("bad.jsonl").write_text("[]\n" * 3, encoding="utf-8")
    assert told in dlm("check", "sheets.dlm", expect=int(told != "no problems")).stdout


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("tables.row_precison >= base - 1", "there is no metric row_precison in tables: did you mean row_precision?"),
        ("tabels.row_precision >= base - 1", "there is no suite tabels: did you mean tables?"),
        ("tables.score >= 0.5 if unreachable tables.scor >= 0.5", "cannot ask 'tables.scor >= 0.5': there is no metric"),
        ("tables.rows_surplus_share <= .1", ""),
        ("validation.sft_loss <= base", ""),
    ],
)  # fmt: skip
def test_check_warns_of_conditions_that_nothing_could_answer(
    dlm: Dlm, gated: Path, condition: str, told: str
) -> None:
    text = gated.read_text(encoding="utf-8")
    gated.write_text(text.replace("tables.row_precision >= base - 1", condition), encoding="utf-8")
    out = dlm("check", "sheets.dlm").stdout
    assert ("18:7: warning: the gate cannot ask" in out) == bool(told)
    assert told in out


def test_check_warns_of_a_gate_with_nothing_behind_it(dlm: Dlm, document: Path) -> None:
    document.write_text(
        HEADER.replace("base_model: pocket\n", "base_model: pocket\ngate:\n") + BODY, encoding="utf-8"
    )
    out = dlm("check", str(document)).stdout
    assert "warning: no gate is declared" in out
    document.write_text(
        document.read_text(encoding="utf-8").replace("gate:\n", "gate: {}\n"), encoding="utf-8"
    )
    assert (
        "no gate is declared" not in dlm("check", str(document), expect=1).stdout
    )  # nothing to make conditions from


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--answers", "none/answers.jsonl"), "there is no folder none"),
        (("--answers", "."), "it is a folder"),
        (("--answers", "notes.dlm"), "would overwrite the document"),
        (("--gold", "--version", "v0001"), "asks no version: --version"),
        (("--gold", "--answers", "a.jsonl"), "asks no version: --answers"),
        (("--gold", "--repeats", "2"), "asks no version: --repeats"),
        (("--gold", "--seed", "2"), "asks no version: --seed"),
        (("--gold", "--top-p", ".5"), "asks no version: --top-p"),
    ],
)
def test_what_eval_could_not_do_is_refused_before_anything_is_answered(
    dlm: Dlm, document: Path, more: tuple[str, ...], told: str
) -> None:
    before = document.read_bytes()
    assert told in dlm("eval", "notes.dlm", *more, expect=2).stderr
    assert document.read_bytes() == before


def test_grader_list(dlm: Dlm) -> None:
    data = validate(dlm.json("grader", "list"))
    assert {one["grader"].partition(":")[0] for one in data["graders"]} == {
        *("spreadsheet", "string_check", "text_similarity", "length", "python")
    }
    assert "row_precision      weight 0.15" in dlm("grader", "list").stdout


def test_grader_test(dlm: Dlm) -> None:
    data = validate(dlm.json("grader", "test", "spreadsheet", "-n", "4"))
    assert (data["ok"], data["cases"], len(data["bad"])) == (True, 4, 5)
    text = dlm(
        "grader", "test", "spreadsheet:published", "--task", "spreadsheet:published", "-n", "6", expect=1
    ).stdout
    assert "FAIL" in text
    assert "not fit to be used yet" in text
    assert "no grader is named" in dlm("grader", "test", expect=2).stderr
    assert "no cases" in dlm("grader", "test", "length:9", expect=2).stderr
    assert "add --document" in dlm("grader", "test", "spreadsheet", "--suite", "a", expect=2).stderr
    split = ("--document", "notes.dlm", "--split", "train")
    assert "leave it out" in dlm("grader", "test", "spreadsheet", *split, expect=2).stderr
    assert "--outputs FILE" in dlm("grader", "test", "spreadsheet", "--against", "length:9", expect=2).stderr


def test_grader_test_says_what_the_grader_failed_with(dlm: Dlm) -> None:
    Path("bad.py").write_text("def grade(sample, item):\n    return item['refrence']\n", encoding="utf-8")
    Path("one.jsonl").write_text('{"prompt": "q", "reference": "r"}\n', encoding="utf-8")
    text = dlm("grader", "test", "python:bad.py", "--cases", "one.jsonl", expect=1).stdout
    assert text.count("1 grader error: KeyError: 'refrence'") == 6  # five outputs, and the reference
    data = validate(dlm.json("grader", "test", "python:bad.py", "--cases", "one.jsonl", expect=1))
    assert data["gold"]["message"] == data["bad"][0]["message"] == "KeyError: 'refrence'"


def test_grader_test_tells_what_it_found_before_it_grades_outputs(
    dlm: Dlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grader that hangs takes its seconds for each of hundreds."""

    def hangs(*_: object) -> None:
        raise UsageError("stopped while it graded outputs")

    monkeypatch.setattr(testing, "_grades", hangs)
    Path("outputs.jsonl").write_text('{"output": "x"}\n', encoding="utf-8")
    result = dlm("grader", "test", "spreadsheet", "-n", "2", "--outputs", "outputs.jsonl", expect=2)
    assert "stopped while it graded" in result.stderr
    assert "a refusal" in result.stdout


def test_grader_test_with_outputs_and_a_second_grader(dlm: Dlm) -> None:
    cases = [{"prompt": f"q{n}", "reference": f"the answer {n}"} for n in range(4)]
    Path("cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
    texts = ["the answer 0", "the answer", "no", "unknown"]
    outputs = [{"prompt": f"q{n if n < 3 else 9}", "output": text} for n, text in enumerate(texts)]
    Path("outputs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in outputs), encoding="utf-8")
    args = (
        "--cases",
        "cases.jsonl",
        "--outputs",
        "outputs.jsonl",
        "--against",
        "text_similarity:levenshtein",
    )
    envelope = dlm.json(
        "grader", "test", "text_similarity", *args, expect=1
    )  # another case's answer is too like
    data = validate(envelope)
    assert (data["outputs_left_out"], len(data["thresholds"]), data["ranks"]["outputs"]) == (1, 10, 3)
    assert data["ranks"]["spearman"] == pytest.approx(1.0)
    assert "could not be graded" in envelope["warnings"][0]
    ran = validate(
        dlm.json("grader", "run", "text_similarity", "--cases", "cases.jsonl", "--outputs", "outputs.jsonl")
    )
    assert [one["error"] for one in ran["grades"]] == [None, None, None, "grader"]
    assert ran["score"]["value"] == pytest.approx(sum(one["score"] or 0 for one in ran["grades"]) / 3)
    assert "sample_parse" in ran["errors"]
    Path("outputs.jsonl").write_text('{"output": "ab"}\n', encoding="utf-8")
    one = dlm("grader", "run", "length:4 words", "--outputs", "outputs.jsonl").stdout
    assert "\nmean 1.0000, 1 of 1 pass\n" in one  # one alone has no interval
    Path("outputs.jsonl").write_text("[]\n", encoding="utf-8")
    assert "outputs-line" in dlm("grader", "run", "length:9", "--outputs", "outputs.jsonl", expect=1).stderr
    gone = dlm("grader", "run", "length:9", "--outputs", "gone.jsonl", expect=2).stderr
    assert "cannot read the file of outputs: No such file or directory\n" in gone
    assert "--answers FILE writes such a file" in gone


def test_a_grader_that_a_document_names_is_asked_about_and_a_typed_one_is_not(
    dlm: Dlm, document: Path
) -> None:
    Path("rubric.py").write_text(RUBRIC, encoding="utf-8")
    Path("cases.jsonl").write_text(
        '{"prompt": "q", "reference": "r"}\n{"prompt": "p", "reference": "s"}\n', encoding="utf-8"
    )
    evals = "evals:\n  mine:\n    cases: cases.jsonl\n    grader: python:rubric.py\n"
    document.write_text(
        HEADER.replace("base_model: pocket\n", f"base_model: pocket\n{evals}") + BODY, encoding="utf-8"
    )
    refused = dlm("grader", "test", "--document", str(document), expect=1).stderr
    assert "names a Python grader that you have not allowed yet" in refused
    assert "found: rubric.py\n" in refused
    assert "--trust" in refused
    data = validate(dlm.json("grader", "test", "--document", str(document), "--trust"))
    assert (data["suite"], data["ok"], data["grader"]) == ("mine", True, "python:rubric.py")
    assert data["isolation"] is not None
    assert dlm.json("grader", "test", "python:rubric.py", "--cases", "cases.jsonl")["data"]["ok"]
