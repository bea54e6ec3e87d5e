"""What a person does on the RL DATA tab: vote, decide about a pair, edit it, apply what was accepted, take it out again.

Decisions are the same short transactions as `dlm preference accept`, `reject`, `edit`; applying writes exactly the change
that was shown, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute

from dlm import review
from dlm.errors import ConflictError, UsageError
from dlm.store import SignalFilter, StagedPair, Store, find_signals
from dlm.web.data_cards import FLAG_WORDS, card_of
from dlm.web.data_tab import reading
from dlm.web.desk import AtDesk
from dlm.web.pages import page, plain
from dlm.web.security import MAX_BODY_BYTES
from dlm.workflow.signals import refresh

__all__ = ["router"]


class _LongTexts(APIRoute):
    """A route whose form fields may be as long as a body. Starlette's own limit is 1 MiB a field, in encoded bytes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def read_first(request: Request) -> Response:
            await request.form(max_part_size=MAX_BODY_BYTES)  # kept by the request
            return await handle(request)

        return read_first


router = APIRouter(route_class=_LongTexts)

SHOWN_LINES = 2000  # of a change; more are counted

_Id = Annotated[int, Form(ge=1, le=2**53)]
_Status = Literal["staged", "accepted", "rejected", "applied", "reverted"]
_Answer = Annotated[
    str, Form(max_length=1_000_000)
]  # two of 500,000, which the page allows, always fit into a body


@router.post("/data/vote")
def vote(
    request: Request,
    desk: AtDesk,
    signal: _Id,
    side: Annotated[Literal["chosen", "rejected"], Form()],
    score: Annotated[Literal["1", "0", "-1"], Form()],
) -> HTMLResponse:
    """This person's word on an answer; 0 takes it back. Answers with the card's buttons."""
    with desk.home.store(desk.dlm_id) as store:
        store.attach(desk.path)
        refresh(store, desk.path, look_at=0)
        found = store.signals.get(signal)
        answer = found.chosen if side == "chosen" else found.rejected
        if not answer:
            raise UsageError("an answer with a score has one side only")
        store.signals.vote(found.prompt, answer, int(score), provenance={"from": f"signal {signal}, {side}"})
        card = card_of(store, signal)
    return page(request, "data/votes.html", card=card, side=side)


@router.post("/data/decide")
def decide(
    request: Request,
    desk: AtDesk,
    signal: _Id,
    seen: Annotated[_Status, Form()],
    action: Annotated[Literal["accept", "reject", "put-back", "revert"], Form()],
    to: Annotated[_Status, Form()] = "staged",
) -> HTMLResponse:
    """A decision about a staged pair that stood as `seen` on the page. Answers with its card."""
    with desk.store() as store:
        pair = _as_seen(store, signal, seen)
        if action == "accept":
            review.accept(store, [pair.id])
        elif action == "reject":
            review.reject(store, [pair.id])
        elif action == "put-back":
            review.put_back(store, pair.id, to)
        else:
            review.revert(store, desk.path, [pair.id])
        refresh(store, desk.path, look_at=1)
        card = card_of(store, signal)
    return page(request, "data/card.html", card=card, flag_words=FLAG_WORDS)


@router.post("/data/edit")
def edit(
    request: Request,
    desk: AtDesk,
    signal: _Id,
    seen: Annotated[_Status, Form()],
    chosen: _Answer,
    rejected: _Answer,
) -> HTMLResponse:
    """Give a pair that waits for review other answers. Answers with its card."""
    with desk.store() as store:
        pair = _as_seen(store, signal, seen)
        mined = review.trace(store, pair.id)
        better = _as_before(chosen, pair.chosen, mined.chosen.text)
        worse = _as_before(rejected, pair.rejected, mined.rejected.text)
        review.edit(store, pair.id, chosen=better, rejected=worse)
        refresh(store, desk.path, look_at=1)
        card = card_of(store, signal)
    return page(request, "data/card.html", card=card, flag_words=FLAG_WORDS, may_undo=True)


@router.get("/data/apply")
def look(request: Request, desk: AtDesk) -> HTMLResponse:
    """The exact change of the document that applying every accepted pair makes."""
    with reading(desk) as store:
        ids = _accepted(store)
        preview = review.preview_apply(store, desk.path, ids) if ids else None
    return page(
        request,
        "data/apply.html",
        tab="data",
        ids=ids,
        preview=preview,
        lines=preview.diff[:SHOWN_LINES] if preview else (),
        more=max(0, len(preview.diff) - SHOWN_LINES) if preview else 0,
    )


@router.get("/data/apply/diff")
def whole_change(desk: AtDesk) -> Response:
    """The same change, every line of it, as a unified diff to keep or read elsewhere."""
    with reading(desk) as store:
        ids = _accepted(store)
        change = review.preview_apply(store, desk.path, ids).diff if ids else ()
    name = plain(desk.path.name)
    return Response(
        review.unified_diff(name, change),
        media_type="text/x-diff",
        headers={"Content-Disposition": f"attachment; filename*=utf-8''{quote(name)}.diff"},
    )


@router.post("/data/apply")
def apply(
    request: Request,
    desk: AtDesk,
    digest: Annotated[str, Form(pattern=r"^[0-9a-f]{64}$")],
    ids: Annotated[str, Form(pattern=r"^[0-9]{1,15}(,[0-9]{1,15})*$", max_length=1_600_000)],
) -> HTMLResponse:
    """Write the change that was shown."""
    with desk.store() as store:
        report = review.apply_previewed(store, desk.path, [int(part) for part in ids.split(",")], digest)
        refresh(store, desk.path, look_at=1)
    return page(request, "data/applied.html", report=report)


def _as_seen(store: Store, signal_id: int, seen: str) -> StagedPair:
    """The staged pair behind a signal, if it stands as the page showed it.

    Raises:
        UsageError: the signal is no staged pair.
        ConflictError: somebody has decided about it meanwhile.
    """
    signal = store.signals.get(signal_id)
    if signal.staged_id is None:
        raise UsageError(f"signal {signal_id} is no pair that waits for review")
    pair = store.mining.pair(signal.staged_id)
    if pair.status != seen:
        raise ConflictError(
            f"pair {pair.id} is {pair.status} now: somebody decided about it meanwhile",
            next_step="reload the page",
        )
    return pair


def _as_before(text: str, *before: str) -> str:
    """A text that was left as one of those before, or given back as it was, with the line ends that it had: a browser's
    form sends CR LF for every one.
    """
    plain = text.replace("\r\n", "\n")
    return next((one for one in before if plain == one.replace("\r\n", "\n")), plain)


def _accepted(store: Store) -> list[int]:
    """The numbers of the staged pairs that were accepted, in the order in which they were staged."""
    wanted = SignalFilter(tab="", standing="accepted", order="oldest")
    found = find_signals(store.signals.index, wanted)
    return sorted(signal.staged_id for signal in found if signal.staged_id is not None)
