"""Any text survives the file, and nothing else in the file moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.document import (
    Document,
    Provenance,
    Section,
    append,
    insert_after,
    mined,
    parse,
    remove,
    render_instruction,
    render_preference,
)
from dlm.document.grammar import decode_text, encode_text, scan
from dlm.document.provenance import read_provenance, write_provenance
from dlm.errors import DlmError, DocumentError, TextError, UsageError
from hostile_text import HEADER, documents, texts, writable

MINED = mined(
    judge_name='cli:x --flag "a" --> b',
    judge_score_chosen=0.82,
    judge_score_rejected=-1e-9,
    mined_at="2026-04-23T18:42:11Z",
    mined_run_id=7,
)


def put(document: Document, place: int, block: str) -> Section:
    """Put `block` after section `place`, or at the end, and read the new section back.

    Every byte and id that was there still is, around what was put in, which goes without a trace.
    """
    if place < len(document.sections):
        text, where = insert_after(document, document.sections[place], block), place + 1
        cut = document.sections[place].span[1]
    else:
        text, where = append(document, block), len(document.sections)
        cut = len(document.text)
    head, tail = document.text[:cut], document.text[cut:]
    assert text.startswith(head)
    assert text.endswith(tail)
    after = parse(text.encode())
    section = after.sections[where]
    assert text[cut : len(text) - len(tail)].strip("\r\n") == text[slice(*section.span)].strip("\r\n")
    ids = [known.id for known in after.sections]
    assert ids[:where] + ids[where + 1 :] == [known.id for known in document.sections]
    assert after.header == document.header
    assert remove(after, section) == document.text
    return section


@given(documents, st.integers(0, 4), st.lists(st.tuples(texts, texts), min_size=1, max_size=2), st.booleans())
def test_any_text_round_trips_as_question_and_answer(
    source: str, place: int, pairs: list[tuple[str, str]], probe: bool
) -> None:
    document = parse(source)
    block = render_instruction([], probes=pairs) if probe else render_instruction(pairs, adapter="tone")
    section = put(document, place, block)
    assert [(question.prompt, question.answer) for question in section.questions] == pairs
    assert all(question.probe is probe for question in section.questions)


@given(documents, st.integers(0, 4), st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=2))
def test_any_text_round_trips_as_prompt_chosen_and_rejected(
    source: str, place: int, triples: list[tuple[str, str, str]]
) -> None:
    document = parse(source)
    section = put(document, place, render_preference(triples, provenance=MINED))
    assert [(triple.prompt, triple.chosen, triple.rejected) for triple in section.triples] == triples
    assert section.auto_mined
    assert section.provenance == MINED


@given(
    documents, st.integers(0, 4), st.lists(texts, min_size=1, max_size=4), st.randoms(use_true_random=False)
)
def test_removing_a_batch_in_any_order_is_the_identity(
    source: str, place: int, batch: list[str], random: object
) -> None:
    document = parse(source)
    blocks = [render_preference([(text, text, "r")], provenance=MINED) for text in batch]
    if place < len(document.sections):
        text = insert_after(document, document.sections[place], blocks)
    else:
        text = append(document, blocks)
    at_once = parse(text)
    assert remove(at_once, [section for section in at_once.sections if section.auto_mined]) == source
    one_by_one = parse(text)
    for _ in blocks:
        added = [section for section in one_by_one.sections if section.auto_mined]
        one_by_one = parse(remove(one_by_one, random.choice(added)))  # type: ignore[attr-defined]
    assert one_by_one.text == source


@given(texts)
def test_encoding_is_undone_by_decoding(text: str) -> None:
    encoded = encode_text(text)
    escapes = [mark.start for mark in scan(encoded) if mark.kind == "escaped"]
    assert decode_text(encoded, 0, len(encoded), escapes) == text
    assert "\n\n" in text or "\n\n" not in encoded
    assert all(mark.kind in ("code", "escaped") for mark in scan(encoded))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", "plain"),
        ("::instruction::", "\\::instruction::"),
        ("\\::instruction::", "\\\\::instruction::"),
        ("### Rejected", "\\### Rejected"),
        (" ::Prose:: ", "\\ ::Prose:: "),
        ("- ::prose::", "\\- ::prose::"),
        ("\\**::prose::**", "\\\\**::prose::**"),
        ("::prose:: x", "\\::prose:: x"),
        ("in ::prose:: x", "in ::prose:: x"),
        ("### A quick look", "### A quick look"),
        ("```\n### A\n```", "```\n### A\n```"),
        ("```\n### A", "\\```\n\\### A"),
        ("````\n```\n::prose::", "\\````\n\\```\n\\::prose::"),
        ("~~~\n```\n~~~\n```", "~~~\n```\n~~~\n\\```"),
        ("```a\n~~~\n```a", "\\```a\n\\~~~\n\\```a"),
        ("\\```", "\\\\```"),
        ("\n", "\\\n\\"),
        (" ", "\\ "),
        ("\\", "\\\\"),
        ("a\n", "a\n\\"),
        ("\r\n", "\r\\\n\\"),
        ("a\r\nb", "a\r\\\nb"),
        ("a\r\\", "a\r\\\\"),
        ("trailing  ", "trailing  "),
    ],
)
def test_the_written_form_is_the_documented_one(text: str, written: str) -> None:
    assert encode_text(text) == written


@pytest.mark.parametrize("text", ["", "a\x00b", "\x00", "\ud800", "a\udfffb"])
def test_what_no_text_file_can_hold_is_refused_as_such(text: str) -> None:
    for place in range(3):
        triple = ["p", "c", "r"]
        triple[place] = text
        with pytest.raises(TextError):
            render_preference([tuple(triple)])  # type: ignore[list-item]
    with pytest.raises(TextError):
        render_instruction([("q", text)])
    with pytest.raises(TextError):
        render_instruction([(text, "a")])


@pytest.mark.big
def test_a_megabyte_of_code_fences_is_written_in_linear_time() -> None:
    text = "".join(f"{'`' * (3 + index % 60)}x\n" for index in range(40_000))
    document = parse(HEADER)
    after = parse(append(document, render_preference([("p", text, "r")])))
    assert after.sections[0].triples[0].chosen == text


@given(st.dictionaries(st.sampled_from(["source"]), writable, min_size=1, max_size=1))
def test_any_provenance_value_round_trips_on_one_line(values: dict[str, str]) -> None:
    line = write_provenance(Provenance("dlm-auto-harvest", values))
    assert "\n" not in line
    assert "\r" not in line
    assert line.count("--") == 2
    assert read_provenance(line) == Provenance("dlm-auto-harvest", values)


def test_a_negative_score_is_written_as_a_number() -> None:
    assert 'judge_score_rejected="-1e-09"' in write_provenance(MINED)


def test_an_edit_with_nothing_or_with_a_foreign_section_is_refused() -> None:
    one, other = parse(HEADER + "a\n"), parse(HEADER + "b\n")
    with pytest.raises(UsageError):
        remove(one, other.sections[0])
    with pytest.raises(UsageError):
        insert_after(one, other.sections[0], render_instruction([("q", "a")]))
    with pytest.raises(UsageError):
        render_preference([])
    for adapter in ("Tone", "a b", "x" * 40, "a::\n::prose", "#", "\ud800"):
        with pytest.raises(DlmError):
            render_instruction([("q", "a")], adapter=adapter)
    with pytest.raises(UsageError):
        mined(
            judge_name="x",
            judge_score_chosen=float("nan"),
            judge_score_rejected=0,
            mined_at="now",
            mined_run_id=1,
        )


def test_identical_sections_share_an_id_and_are_told_apart_by_index() -> None:
    block = render_instruction([("q", "a")])
    document = parse(append(parse(HEADER), [block, block]))
    first, second = document.sections
    assert first.id == second.id
    assert (first.index, second.index) == (0, 1)
    assert remove(document, second) == append(parse(HEADER), block)


def test_ids_ignore_line_ends_blank_edges_adapter_and_provenance() -> None:
    plain = parse(HEADER + "::instruction::\n### Q\nq\n### A\na\n")
    crlf = parse((HEADER + "\n::instruction#tone::\n\n### Q\nq\n### A\na\n  \n\n").replace("\n", "\r\n"))
    assert plain.sections[0].id == crlf.sections[0].id
    assert crlf.sections[0].adapter == "tone"
    import hashlib

    digest = hashlib.sha256(b"instruction\n### Q\nq\n### A\na").hexdigest()[:16]
    assert plain.sections[0].id == digest


def test_a_broken_document_is_never_edited() -> None:
    with pytest.raises(DocumentError):
        parse(HEADER + "```\nopen")
