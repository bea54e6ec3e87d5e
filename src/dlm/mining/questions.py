"""The questions that are asked: the document's own, or those of a file; each once, and no probe among them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlm.document import Document
from dlm.errors import DocumentError, Problem, UsageError, reason_of

__all__ = [
    "Question",
    "hand_written_answers",
    "probes_of",
    "questions_of_document",
    "questions_of_file",
    "seed_of",
]


@dataclass(frozen=True)
class Question:
    """A question to sample answers to. `place` says where it stands, `path:line`."""

    prompt: str
    place: str

    @property
    def key(self) -> str:
        """64 hex digits of its text."""
        return hashlib.sha256(json.dumps(["question", self.prompt]).encode()).hexdigest()


def seed_of(question: Question, sample: int, seed: int) -> int:
    """The seed of one sample, an integer of 64 bits with a sign: by the question's content and the sample's number, so
    that a question's answers are the same whatever else is asked.
    """
    content = f"{seed}\0{question.key}\0{sample}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big", signed=True)


def questions_of_document(document: Document) -> list[Question]:
    """Each question of the instruction sections once, in order. Probes are left out, also where they are asked again."""
    name = str(document.path or "document")
    return _unique(
        (
            Question(question.prompt, f"{name}:{question.line}")
            for section in document.sections
            for question in section.questions
            if not question.probe
        ),
        probes_of(document),
    )


def probes_of(document: Document) -> frozenset[str]:
    """The texts of the questions that are held out."""
    return frozenset(
        question.prompt for section in document.sections for question in section.questions if question.probe
    )


def hand_written_answers(document: Document) -> list[tuple[str, str]]:
    """(question, answer) of what a person wrote down as good: instructions, and chosen answers that were not mined."""
    found = []
    for section in document.sections:
        found += [(question.prompt, question.answer) for question in section.questions if not question.probe]
        if not section.auto_mined:
            found += [(triple.prompt, triple.chosen) for triple in section.triples]
    return found


def questions_of_file(path: Path, probes: Iterable[str] = ()) -> list[Question]:
    """Each question of a file once, in order: one on each line, or JSON lines with a "prompt".

    A file is one of JSON lines when its first line that is not blank is a JSON object.

    Raises:
        UsageError: the file cannot be read, or holds no question that may be asked.
        DocumentError: lines that are no question, with their numbers.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the file of questions: {reason_of(error)}",
            where=str(path),
            expected='UTF-8 text, one question on each line, or JSON lines with a "prompt"',
            next_step="check the path: --questions FILE",
        ) from None
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    as_json = bool(lines) and isinstance(_json(lines[0][1]), dict)
    problems: list[Problem] = []
    found: list[Question] = []
    for number, line in lines:
        prompt = _prompt_of(line) if as_json else line
        fault = "" if prompt is not None else 'no JSON object with a "prompt" that is a text'
        if prompt is not None and "\x00" in prompt:
            fault = "a NUL character cannot stand in a question"
        if fault:
            problems.append(Problem(number, 1, "questions-line", fault))
        elif prompt is not None:
            found.append(Question(prompt, f"{path}:{number}"))
    if problems:
        raise DocumentError(problems, str(path), next_step="mend the lines above, then run the command again")
    return _unique(found, probes)


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _prompt_of(line: str) -> str | None:
    value = _json(line)
    prompt = value.get("prompt") if isinstance(value, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        return None
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return None
    return prompt


def _unique(questions: Iterable[Question], probes: Iterable[str]) -> list[Question]:
    held_out = {probe.strip() for probe in probes}
    first: dict[str, Question] = {}
    for question in questions:
        if question.prompt.strip() not in held_out:
            first.setdefault(question.prompt, question)
    return list(first.values())


def content_hash(questions: Sequence[Question], system_prompt: str | None) -> str:
    """64 hex digits over everything that the version is asked, in any order of questions."""
    content = json.dumps(["asked", system_prompt or "", sorted(question.key for question in questions)])
    return hashlib.sha256(content.encode()).hexdigest()
