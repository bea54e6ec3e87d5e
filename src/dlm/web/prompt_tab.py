"""The PROMPT tab: ask the current version or two side by side, and say which answer is better.

A vote is a signal at once; a preference is a pair that waits for review, and is never trained on as it is.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel, Field, StringConstraints

from dlm.document import Document
from dlm.web.answerer import Answerer, can_answer
from dlm.web.desk import AtDesk
from dlm.web.pages import page

__all__ = ["router"]

router = APIRouter()

_Text = Annotated[str, StringConstraints(min_length=1, max_length=50_000)]
_Version = Annotated[str, StringConstraints(pattern=r"^(v\d{4,9}|base)$")]


class Question(BaseModel):
    """A question to one or two versions; null is the current one."""

    question: _Text
    versions: Annotated[list[_Version | None], Field(min_length=1, max_length=2)]
    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 0.0
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 256
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0


class Vote(BaseModel):
    """A person's word on an answer: 1 good, -1 bad, 0 takes it back. `version` is who answered."""

    prompt: _Text
    answer: _Text
    score: Annotated[int, Field(ge=-1, le=1)]
    version: _Version | None = None


class Preference(BaseModel):
    """Which of two answers to a question is better; `version` gave the chosen one."""

    prompt: _Text
    chosen: _Text
    rejected: _Text
    version: _Version | None = None


@router.get("/prompt", response_class=HTMLResponse)
def show(request: Request, desk: AtDesk) -> HTMLResponse:
    """The tab's page."""
    versions: list[str] = []
    current = None
    store = desk.find_store()
    if store is not None:
        with store:
            versions = [one.name for one in store.versions.list() if one.answers][::-1]
            current = store.versions.current_name()
    document = desk.project().document
    probes = () if document is None else _probes(document)
    return page(
        request,
        "prompt.html",
        tab="prompt",
        versions=versions,
        current=current,
        can_answer=can_answer(),
        probes=probes[:6],
    )


@router.post("/api/ask", response_class=StreamingResponse)
async def ask(request: Request, asked: Question) -> StreamingResponse:
    """The answers as they are sampled: JSON lines, as in `dlm.workflow.answering`."""
    answerer: Answerer = request.app.state.answerer

    async def lines() -> AsyncIterator[str]:
        settings = {"temperature": asked.temperature, "max_new_tokens": asked.max_new_tokens}
        async for event in answerer.ask(asked.question.strip(), asked.versions, settings, asked.seed):
            yield json.dumps(event) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.post("/api/answers/vote")
def vote(desk: AtDesk, said: Vote) -> dict[str, Any]:
    """A vote: a scalar signal of ±1, which REWARD lists."""
    with desk.home.store(desk.dlm_id) as store:
        told = store.signals.vote(
            said.prompt, said.answer, said.score, provenance={"asked": "web", "version": said.version}
        )
        return {"vote": said.score, "signal": None if told is None else told.id}


@router.post("/api/answers/prefer")
def prefer(desk: AtDesk, said: Preference) -> dict[str, Any]:
    """A preference: a pair that is staged for review."""
    version = None if said.version == "base" else said.version
    with desk.home.store(desk.dlm_id) as store:
        if version is not None:
            store.versions.get(version)  # names the versions there are
        pair = store.signals.prefer(said.prompt, said.chosen, said.rejected, version=version)
        return {"staged": pair.id, "status": pair.status}


def _probes(document: Document) -> tuple[str, ...]:
    """Questions that are never trained on: good ones to try."""
    return tuple(one.prompt for section in document.sections for one in section.questions if one.probe)
