"""Every problem of a file, in one pass, at its true place; and never anything but a `DlmError`."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.document import Document, parse
from dlm.errors import DocumentError, Problem
from hostile_text import FRAGMENTS, HEADER, hostile, hostile_lines

MISTAKES = """\
---
dlm_id: 01KPQ9X100000000000000000I
dlm_version: 16
base_model: pocket
base_model: smollm2-135m
system_promt: Be brief.
training:
  lora_r: 300
  learning_rate: fast
  lora_alfa: 16
  target_modules: [q_proj
  preference:
    method: ppo
    beta: 0.2
  sources:
    - include: ["*.md"]
evals: {tables: {task: spreadsheet, cases: x.jsonl}}
---
Prose comes first.
 ::instruction::
### Q
What is one?
### Q
What is two?
### A
Two.
### A
Too much.
::instruction ::
Not in a question.
### Q

### A
An answer.
### q
Lower case?
### A

::Preference::
### Prompt
p
### Rejected
r
### Prompt
p
### Chosen
c
### Rejected:
r
::instrction::
### Q
q
### A
a
::note::
Anything.
::preference::
<!-- dlm-auto-mined: judge_name="x" mined_at="now" -->
### Prompt
p
### Chosen
c
### Chosen
c2
### Rejected
r
::instruction::
::preference#Loud Voice::
### Prompt
p
### Chosen
c
### Rejected
r
::image path="a.png" alt="b"::
::instruction::
### Q
Is this code closed?
### A
~~~~
no
~~~
::prose::
  ```python
neither is this
"""

PLANTED = [  # (line, column, code)
    (2, 9, "bad-value"), (3, 14, "bad-value"), (5, 1, "duplicate-key"), (6, 1, "unknown-key"),
    (8, 11, "bad-value"), (9, 18, "bad-value"), (10, 3, "unknown-key"), (11, 19, "yaml"),
    (13, 13, "bad-value"), (14, 5, "unknown-key"), (16, 7, "missing-key"), (17, 17, "bad-value"),
    (20, 1, "near-fence"), (21, 1, "missing-heading"), (27, 1, "misplaced-heading"),
    (29, 14, "near-fence"), (30, 1, "stray-text"), (31, 1, "empty-text"), (35, 5, "near-heading"),
    (37, 1, "empty-text"), (39, 3, "near-fence"), (42, 1, "misplaced-heading"), (48, 13, "near-heading"),
    (50, 8, "near-fence"), (55, 1, "unknown-fence"), (58, 1, "bad-provenance"), (63, 1, "misplaced-heading"),
    (67, 1, "empty-section"), (68, 14, "near-fence"), (75, 1, "unknown-fence"), (80, 1, "unclosed-code"),
    (84, 3, "unclosed-code"),
]  # fmt: skip


def problems_of(source: str | bytes) -> list[Problem]:
    """What is wrong with a source, in the order of places."""
    try:
        parse(source)
    except DocumentError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize("feed", ["\n", "\r\n"])
def test_all_of_many_planted_mistakes_are_reported_at_their_places(feed: str) -> None:
    found = problems_of(MISTAKES.replace("\n", feed))
    assert [(problem.line, problem.column, problem.code) for problem in found] == PLANTED
    assert len(PLANTED) >= 30
    assert len({code for _, _, code in PLANTED}) >= 15


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        (" ::instruction::", "::instruction::"),
        (":: instruction ::", "::instruction::"),
        ("::instruction:: ", "::instruction::"),
        ("::Instruction::", "::instruction::"),
        ("::PREFERENCE::", "::preference::"),
        ("::instruction:", "::instruction::"),
        ("::instruction", "::instruction::"),
        (":instruction:", "::instruction::"),
        (":::preference:::", "::preference::"),
        ("::prose::\u200b", "::prose::"),
        ("\ufeff::prose::", "::prose::"),
        ("::prose::\xa0", "::prose::"),
        ("::instructions::", "::instruction::"),
        ("::instruction #tone::", "::instruction#tone::"),
        ("::instruction#Tone::", "::instruction#tone::"),
        ("::instruction#::", "::instruction::"),
        ("::note::", "\\::note::"),
        ("::preference:: <!-- x -->", "::preference::"),
        (f"::preference:: <!-- dlm-auto-mined: {'x' * 300} -->", "::preference::"),
        ("::instruction::foo", "::instruction::"),
        ("::Instructions:: foo", "::instruction::"),
        ("::instruction#tone:: foo", "::instruction#tone::"),
        ("::instruction::#tone", "::instruction#tone::"),
        ("::prose:: and ::instruction:: are fences", "::prose::"),
        ("**::instruction::**", "::instruction::"),
        ("**::instruction#tone::** ", "::instruction#tone::"),
        ("- ::instruction::", "::instruction::"),
        ("  * :: Instruction ::", "::instruction::"),
        ("> ::instruction::", "::instruction::"),
        (">::instruction::", "::instruction::"),
        ("> - **::instruction::**", "::instruction::"),
        ("12. ::prose::", "::prose::"),
        ("### ::prose::", "::prose::"),
        ("# ::prose:: <!-- x -->", "::prose::"),
        ("~~::prose::~~", "::prose::"),
        ("| ::prose:: |", "::prose::"),
        ("\u201c::prose::\u201d", "::prose::"),
    ],
)
def test_a_near_miss_of_a_fence_shows_the_corrected_line(line: str, fix: str) -> None:
    (problem,) = [
        problem
        for problem in problems_of(
            f"{HEADER}text\n{line}\n### Q\nq\n### A\na\n### Prompt\np\n### Chosen\nc\n### Rejected\nr\n"
        )
        if problem.line == 7 and "fence" in problem.code
    ]
    assert problem.fix == fix
    if not fix.startswith("\\"):
        assert not [p for p in problems_of(HEADER + fix + "\ntext") if "fence" in p.code]


@pytest.mark.parametrize(
    "line",
    [
        "::",
        ":::",
        ":smile:",
        "std::vector::size",
        "::1",
        "a ::prose:: b",
        ": instruction",
        ":::note",
        "::std::vec",
        ":: Results ::",
        "Write ::instruction:: before a question.",
        "- ::instruction:: starts a section",
        "- Begin with ::instruction::",
        "(::instruction:: and ::prose:: are names)",
        "`::instruction::`",
        "- `::instruction::` for questions",
        "- ::note::",
        "**::std::vec**",
        "- :prose:",
        "1) :: Results ::",
        "::process::run",
        "prose::instruction::x",
    ],
)
def test_ordinary_lines_with_colons_are_text(line: str) -> None:
    assert parse(f"{HEADER}{line}\n").sections[0].prose == line


@pytest.mark.parametrize(
    "line", ["### A quick look", "#### Q", "# A", "### Answer", "###", "### Prompting", "  ## Q"]
)
def test_ordinary_headings_stay_in_an_answer(line: str) -> None:
    document = parse(f"{HEADER}::instruction::\n### Q\nq\n### A\na\n{line}\n")
    assert document.sections[0].questions[0].answer == f"a\n{line}"


def test_headings_of_the_other_kind_are_text() -> None:
    document = parse(f"{HEADER}### Q\n\n::instruction::\n### Q\n### Prompt\n### A\n### chosen\n")
    assert document.sections[0].prose == "### Q"
    assert document.sections[1].questions[0].prompt == "### Prompt"
    assert document.sections[1].questions[0].answer == "### chosen"


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("### Q !prob", "### Q !probe"),
        ("### Q (probe)", "### Q !probe"),
        ("### Question", "### Q"),
        ("### Question 2:", "### Q"),
        ("### Qustion", "### Q"),
        ("## Q", "### Q"),
        ("#### Q", "### Q"),
        ("  # Q", "### Q"),
        ("### Q1", "### Q"),
    ],
)
@pytest.mark.parametrize("feed", ["\n", "\r\n"])
def test_where_a_heading_is_missing_the_line_likely_meant_as_one_is_named(
    line: str, fix: str, feed: str
) -> None:
    for before in ("", "### Q\nq\n### A\n```\n## Q\n```\n"):
        source = f"{HEADER}::instruction::\n{before}{line}\nq\n### A\na\n### Q\nq\n### A\na\n"
        (problem,) = problems_of(source.replace("\n", feed))
        number = 7 + before.count("\n")
        assert (problem.line, problem.column, problem.code, problem.fix) == (number, 1, "near-heading", fix)


def test_every_heading_likely_meant_is_named_and_what_is_still_missing_told() -> None:
    def found(body: str) -> list[tuple[int, str, str]]:
        return [(problem.line, problem.code, problem.fix) for problem in problems_of(HEADER + body)]

    near = "near-heading"
    assert found("::instruction::\n### Q\nq\n### Answer\na\n### Q\nq\n### A1\na\n") == [
        (9, near, "### A"), (13, near, "### A"),
    ]  # fmt: skip
    assert found("::instruction::\n\n## Q\nq\n## A\na\n") == [(8, near, "### Q"), (10, near, "### A")]
    assert found("::instruction::\nHello\n## Q\nq\n") == [
        (7, "stray-text", ""), (8, "missing-heading", ""), (8, near, "### Q"),
    ]  # fmt: skip
    assert found("::preference::\n### Prompt\np\n#### Chosen\nc\n### Reject\nr\n### Prompt\np\n### Chosen\nc\n") == [
        (9, near, "### Chosen"), (11, near, "### Rejected"), (15, "missing-heading", ""),
    ]  # fmt: skip
    assert found("::instruction::\n### Q\nq\n### A\na\n## Q\nq\n### Q\nq\n### A\na\n") == []


def test_headings_in_prose_are_a_warning_once_for_each_section() -> None:
    document = parse(
        f"{HEADER}Notes.\n### Q\nq\n### A\na\n### Q !probe\nq\n::prose::\n### Chosen\nc\n"
        "::prose::\n\\### Q\n### A title\n## Q\n```\n### Q\n```\n::instruction::\n### Q\nq\n### A\na\n"
    )
    assert [(warning.line, warning.column, warning.code) for warning in document.warnings] == [
        (7, 1, "heading-in-prose"), (14, 1, "heading-in-prose"),
    ]  # fmt: skip
    assert "put ::instruction:: on a line before it" in document.warnings[0].message
    assert "2 more" in document.warnings[0].message
    assert "put ::preference:: on a line before it" in document.warnings[1].message


@pytest.mark.parametrize(
    "block",
    [
        "```\n::prose::\n### A\n```",
        "````\n```\n::prose::\n````",
        "~~~\n```\n::prose::\n~~~",
        "   ```sh\n::prose::\n  `````",
        "~~~ a ` b\n::prose::\n~~~~   ",
    ],
)
def test_fenced_code_hides_fences_and_headings(block: str) -> None:
    document = parse(f"{HEADER}::instruction::\n### Q\nq\n### A\n{block}\n\n### Q !probe\nx\n### A\ny\n")
    first, second = document.sections[0].questions
    assert first.answer == block
    assert second.probe


@pytest.mark.parametrize("line", ["    ```", "``` a`b", "``", "x ```"])
def test_what_commonmark_does_not_call_a_code_fence_hides_nothing(line: str) -> None:
    document = parse(f"{HEADER}{line}\n::prose::\nb\n{line}\n")
    assert len(document.sections) == 2


def test_an_unclosed_block_is_reported_at_its_opening_and_hides_nothing() -> None:
    found = problems_of(f"{HEADER}a\n```\nb\n::nothing::\n")
    assert [(problem.line, problem.code) for problem in found] == [(7, "unclosed-code"), (9, "unknown-fence")]


def test_a_forgotten_closing_fence_far_above_is_named() -> None:
    found = problems_of(f"{HEADER}a\n```\nb\n::prose::\nc\n```\nd\n```\n")
    assert [problem.line for problem in found] == [13]
    assert "line 7" in found[0].message
    assert "line 9" in found[0].message


@pytest.mark.parametrize(
    ("source", "line", "column", "code"),
    [
        (b"", 1, 1, "no-header"),
        (b"text\n", 1, 1, "no-header"),
        (b"::instruction::\n### Q\nq\n### A\na\n", 1, 1, "no-header"),
        (b"--- \ndlm_id: 01KPQ9X1000000000000000000\nbase_model: x\n---\n", 1, 1, "header-fence"),
        (b"---\ndlm_id: 01KPQ9X1000000000000000000\nbase_model: x\n---  \n---\n", 4, 4, "header-fence"),
        (b"---\ndlm_id: 01KPQ9X1000000000000000000\nbase_model: x\n\ntext", 1, 1, "header-fence"),
        (HEADER.encode() + b"ab\xffc", 6, 3, "not-utf8"),
        (HEADER.encode() + "é\n\né".encode("latin-1"), 6, 1, "not-utf8"),
        (HEADER.encode() + b"ab\n\x00", 7, 1, "nul"),
        (b"---\ndlm_id: 01KPQ9X1000000000000000000\nbase_model: x\x07\n---\n", 3, 14, "yaml"),
        (HEADER.encode() + b"\xed\xa0\x80", 6, 1, "not-utf8"),
    ],
)
def test_files_that_are_no_documents_are_refused_at_the_right_place(
    source: bytes, line: int, column: int, code: str
) -> None:
    first = problems_of(source)[0]
    assert (first.line, first.column, first.code) == (line, column, code)


def test_a_file_without_a_header_is_told_what_to_type() -> None:
    with pytest.raises(DocumentError, match=r"dlm init --adopt"):
        parse("just text\n")


def test_a_byte_order_mark_is_a_warning() -> None:
    document = parse(b"\xef\xbb\xbf" + HEADER.encode() + b"text\n")
    assert document.text == HEADER + "text\n"
    assert [warning.code for warning in document.warnings] == ["bom"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(range(256)) * 4096, "no text file"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(0, 256, 7)) * 99, "no text file"),
        (b"\x00" * 100, "no text file"),
        (b"\xff\n" * 200_000, "another encoding"),
        (("Привет, мир.\n" * 50).encode("koi8-r"), "another encoding"),
        (HEADER.encode() + "漢字仮名交じり文。\n".encode("shift-jis") * 20, "another encoding"),
    ],
)
def test_a_file_that_is_no_utf8_text_gives_a_short_report(data: bytes, words: str) -> None:
    found = problems_of(data)
    assert len(found) <= 6
    assert {problem.code for problem in found} <= {"not-utf8", "nul"}
    assert words in found[-1].message
    with pytest.raises(DocumentError) as caught:
        parse(data)
    assert "--adopt" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", [HEADER + "Text.\n", "Just some text.\n", "Überall Grüße – und “mehr”.\n"])
def test_wide_encodings_are_named_with_the_command_that_converts(encoding: str, text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(text.encode(encoding))
    (problem,) = caught.value.problems
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    assert (problem.line, problem.column, problem.code) == (1, 1, "not-utf8")
    assert f"probably {name[:6]}," in problem.message
    assert f"iconv -f {name} -t UTF-8 FILE > COPY" in problem.message
    assert "--adopt" not in str(caught.value)


def test_a_text_in_latin_1_shows_its_places_and_the_likely_encoding() -> None:
    line = "Le texte est écrit en français, à la main.\n"
    found = problems_of((HEADER + line * 50).encode("latin-1"))
    assert len(found) == 101
    assert "iconv -f WINDOWS-1252" in found[0].message
    assert "iconv" not in found[1].message
    assert "50 more places" in found[-1].message
    mixed = problems_of(HEADER.encode() + line.encode() + line.encode("latin-1"))
    assert [problem.line for problem in mixed] == [7, 7, 7]
    assert "iconv" not in mixed[0].message


def test_lone_surrogates_in_text_are_problems() -> None:
    assert [problem.code for problem in problems_of(HEADER + "a\ud800")] == ["not-utf8"]


def test_a_probe_that_is_trained_on_is_a_warning() -> None:
    pair = "### Q{}\nq\n### A\na\n"
    document = parse(HEADER + "::instruction::\n" + pair.format("") + pair.format(" !probe"))
    assert [(warning.code, warning.line) for warning in document.warnings] == [("probe-leak", 11)]


def well_placed(source: str | bytes) -> Document | None:
    """Parse; whatever is wrong must be a DocumentError whose places are in the source."""
    try:
        return parse(source)
    except DocumentError as error:
        text = source.decode("utf-8", "replace") if isinstance(source, bytes) else source
        lines = text.split("\n")
        for problem in error.problems:
            assert 1 <= problem.line <= len(lines) + 1
            assert problem.column >= 1
        return None


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_raise_a_document_error(data: bytes) -> None:
    well_placed(data)
    well_placed(HEADER.encode() + data)


@given(st.one_of(hostile, hostile_lines, st.text()), st.booleans())
def test_any_body_parses_or_raises_a_document_error(body: str, crlf: bool) -> None:
    document = well_placed((HEADER + body).replace("\n", "\r\n" if crlf else "\n"))
    if document:
        ends = [section.span for section in document.sections]
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))


YAML = (
    "a", "dlm_id", "base_model", "training", "lora_r", "evals", "01KPQ9X1000000000000000000", ": ", ":", "\n", "\n  ", "\n- ",
    "- ", "? ", "[", "]", "{", "}", ", ", "&x ", "*x", "<<: *x", "!!str ", "!foo ", "!!python/name:os ", "'", '"', "|\n ", ">",
    "# c", "%YAML 1.1\n", "---\n", "...\n", "~", "1e999", ".nan", "0x_", "=", "\t", "\r", "\x85", "\u2028", "\x07", "@", "`",
)  # fmt: skip


@given(st.lists(st.sampled_from(YAML), max_size=30).map("".join))
def test_any_header_parses_or_raises_a_document_error(header: str) -> None:
    well_placed(f"---\n{header}\n---\ntext\n")
    well_placed(HEADER[:-4] + header + "\n---\n")


@given(st.lists(st.sampled_from([*FRAGMENTS, *YAML, HEADER]), max_size=30).map("".join))
def test_any_mixture_parses_or_raises_a_document_error(source: str) -> None:
    well_placed(source)


@pytest.mark.parametrize(
    "header",
    [
        "[" * 200_000,
        "{" * 200_000,
        "- " * 100_000,
        "a: " * 80_000,
        "? " * 100_000,
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "a: &a [*a]",
        "a: &a {<<: *a}",
        "x" * 1_000_000,
        "'" * 200_001,
        "seed: " + "9" * 10_000,
        "a: |\n" + " x\n" * 60_000,
    ],
)
def test_hostile_yaml_is_refused_quickly(header: str) -> None:
    found = problems_of(f"---\n{header}\n---\n")
    assert found
    assert len(found) < 60


@pytest.mark.big
@pytest.mark.parametrize(
    "body",
    [
        "\n" * 1_000_000,
        ":" * 1_000_000,
        "::x" * 300_000,
        "```x\n" * 200_000,
        "".join(f"{'`' * (3 + i % 1000)}\n" for i in range(2000, 0, -1)),
        "\\" * 1_000_000,
        "\\\r" * 500_000,
        " " * 1_000_000 + "::prose::",
        "::instruction::\n" + "### Q\nq\n### A\na\n" * 60_000,
        "::instruction::\n### Q\n" + "\\### A\n" * 140_000 + "### A\na\n",
        "::prose::\na\n" * 80_000,
        "### Q\n" * 160_000,
        "::instruction::\n" + "## Q\n" * 160_000,
        "::instruction::\n" + "# q\n# a\n" * 120_000,
        "::instruction::\n" + "# Annwser\n### A\n" * 60_000,
        "::instruction::\n" + "```\n### Q\n```\n# Q\n### A\n" * 40_000,
        "- " * 400_000 + "::prose::",
        "- ::prose:: x\n" * 70_000,
        "#" * 1_000_000,
        "\u200b" * 300_000,
    ],
)
def test_parsing_takes_linear_time(body: str) -> None:
    start = time.process_time()
    problems_of(HEADER + body)
    assert time.process_time() - start < 10  # seconds; whatever is quadratic takes minutes here
