"""The RL DATA tab, to look at: sub-tabs with counts, the filtered list, one signal closely, downloads.

Reading renews the index of the document's pairs where the file has changed, and nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.background import BackgroundTask

from dlm.document.surface import audit
from dlm.store import (
    FLAGS,
    ORDERS,
    STANDINGS,
    TABS,
    Home,
    SignalFilter,
    Store,
    count_signals,
    facets,
    find_signals,
)
from dlm.web.data_cards import FLAG_WORDS, card_of, cards_of, details_of
from dlm.web.desk import AtDesk, Desk
from dlm.web.pages import is_fragment, page
from dlm.workflow.data_export import write_export
from dlm.workflow.signals import refresh

__all__ = ["Asked", "SignalId", "reading", "router", "tab_counts"]

router = APIRouter()

PAGE_SIZE = 20
LOOK_AT = 300  # pairs whose flags a request measures at most; imports measure their own
AUDITED = 5000  # pairs that the audit of the surface reads at most, the newest ones
TITLES = {"preference": "PREFERENCE", "reward": "REWARD", "dpo": "DPO", "orpo": "ORPO"}
STANDING_WORDS = {
    "": "all but turned down",
    "waiting": "staged or accepted",
    "staged": "waiting for review",
    "accepted": "accepted",
    "document": "in the document",
    "store": "in the store",
    "turned-down": "turned down",
}
ORDER_WORDS = {
    "newest": "newest first",
    "oldest": "oldest first",
    "widest": "widest margin",
    "narrowest": "narrowest margin",
    "best": "best score",
    "worst": "worst score",
    "longer": "chosen longer",
    "shorter": "chosen shorter",
}
assert set(STANDING_WORDS) == set(STANDINGS)
assert set(ORDER_WORDS) == set(ORDERS)

SignalId = Annotated[int, "a signal's number"]
_Words = Annotated[str, Query(max_length=300)]
_Tab = Literal["preference", "reward", "dpo", "orpo"]
_Source = Literal["", "hand", "mined", "vote", "grader", "experiment"]
_Standing = Literal["", "waiting", "staged", "accepted", "document", "store", "turned-down"]
_Order = Literal["newest", "oldest", "widest", "narrowest", "best", "worst", "longer", "shorter"]
_Flag = Literal[
    "", "any", "only_white_space", "line_endings", "final_newline", "trailing_space", "leading_space", "topic_drift"
]  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """The list that an address asks for. Empty texts are what an empty field of the form sends."""

    filter: SignalFilter
    page: int

    def address(self, path: str = "/data", **changes: Any) -> str:
        """The address of this list with some parts changed."""
        values: dict[str, Any] = {
            "tab": self.filter.tab,
            "search": self.filter.search,
            "source": self.filter.source,
            "judge": self.filter.judge,
            "standing": self.filter.standing,
            "flag": self.filter.flag,
            "run": self.filter.run,
            "margin": "" if self.filter.min_margin is None else f"{self.filter.min_margin:g}",
            "order": self.filter.order,
            "page": self.page,
        } | changes
        usual = {"order": "newest", "page": 1}
        said = {k: v for k, v in values.items() if v not in ("", None) and usual.get(k) != v}
        return f"{path}?{urlencode(said)}"


def _asked(
    tab: _Tab = "preference",
    search: _Words = "",
    source: _Source = "",
    judge: _Words = "",
    standing: _Standing = "",
    flag: _Flag = "",
    run: Annotated[str, Query(pattern=r"^[0-9]{0,15}$")] = "",
    margin: Annotated[str, Query(pattern=r"^(-?[0-9]{1,9}(\.[0-9]{0,9})?)?$")] = "",
    order: _Order = "newest",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Asked:
    wanted = SignalFilter(
        tab, search, source, judge, standing, flag, int(run) if run else None, float(margin) if margin else None, order
    )  # fmt: skip
    return Asked(wanted, page)


AskedFor = Annotated[Asked, Depends(_asked)]


@contextmanager
def reading(desk: Desk) -> Iterator[Store]:
    """The store, its index in line with the document. Before there is one: an empty one of this request alone."""
    store = desk.find_store()
    if store is not None:
        with store:
            refresh(store, desk.path, look_at=LOOK_AT)
            yield store
        return
    with (
        tempfile.TemporaryDirectory(prefix="dlm-") as folder,
        Home.open(Path(folder) / "home").store(desk.dlm_id) as empty,
    ):
        refresh(empty, desk.path, look_at=LOOK_AT)
        yield empty


def tab_counts(store: Store) -> dict[str, int]:
    """How many signals each sub-tab holds."""
    return {tab: count_signals(store.signals.index, SignalFilter(tab=tab)) for tab in TABS}


@router.get("/data")
def show(request: Request, desk: AtDesk, asked: AskedFor) -> HTMLResponse:
    """The tab's page; for htmx its list alone."""
    with reading(desk) as store:
        values = _list(store, asked)
        if not is_fragment(request):
            values |= {
                "counts": tab_counts(store),
                "facets": facets(store.signals.index, asked.filter.tab),
                "titles": TITLES,
                "standing_words": STANDING_WORDS,
                "order_words": _orders(asked.filter.tab),
                "flag_words": FLAG_WORDS,
                "accepted": count_signals(store.signals.index, SignalFilter(tab="", standing="accepted")),
            }
    if not is_fragment(request):
        return page(request, "data.html", tab="data", **values)
    answer = page(request, "data/results.html", hx=True, **values)
    answer.headers["HX-Push-Url"] = asked.address()
    return answer


def _orders(tab: str) -> dict[str, str]:
    """The orders that make a difference: answers with a score have no margin, and no other answer to be longer than."""
    return {
        k: v for k, v in ORDER_WORDS.items() if tab != "reward" or k in ("newest", "oldest", "best", "worst")
    }


def _list(store: Store, asked: Asked) -> dict[str, Any]:
    index = store.signals.index
    total = count_signals(index, asked.filter)
    pages = max(1, -(-total // PAGE_SIZE))
    asked = replace(asked, page=min(asked.page, pages))
    found = find_signals(index, asked.filter, limit=PAGE_SIZE, offset=PAGE_SIZE * (asked.page - 1))
    return {
        "asked": asked,
        "total": total,
        "pages": pages,
        "first": PAGE_SIZE * (asked.page - 1) + 1,
        "cards": cards_of(store, found),
        "flag_words": FLAG_WORDS,
    }


@router.get("/data/counts")
def counts(request: Request, desk: AtDesk, asked: AskedFor) -> HTMLResponse:
    """The sub-tabs, and how many pairs wait to be applied: asked for again when the store has changed."""
    with reading(desk) as store:
        return page(
            request,
            "data/subtabs.html",
            asked=asked,
            counts=tab_counts(store),
            titles=TITLES,
            accepted=count_signals(store.signals.index, SignalFilter(tab="", standing="accepted")),
        )


@router.get("/data/signals/{signal_id}")
def one(request: Request, desk: AtDesk, signal_id: int) -> HTMLResponse:
    """A card alone."""
    with reading(desk) as store:
        return page(
            request, "data/card.html", card=card_of(store, _number(signal_id)), flag_words=FLAG_WORDS
        )  # fmt: skip


@router.get("/data/signals/{signal_id}/details")
def details(request: Request, desk: AtDesk, signal_id: int) -> HTMLResponse:
    """A signal closely: word diff, lengths, reasons, lineage."""
    with reading(desk) as store:
        return page(
            request, "data/details.html", details=details_of(store, desk.path, _number(signal_id)), flag_words=FLAG_WORDS
        )  # fmt: skip


@router.get("/data/signals/{signal_id}/edit")
def edit_form(request: Request, desk: AtDesk, signal_id: int) -> HTMLResponse:
    """The form that gives a pair other answers, in place of its card."""
    with reading(desk) as store:
        return page(request, "data/edit.html", card=card_of(store, _number(signal_id)))


@router.get("/data/audit")
def surface(request: Request, desk: AtDesk, asked: AskedFor) -> HTMLResponse:
    """What the surface of the listed pairs gives away: features that alone tell chosen from rejected answers."""
    with reading(desk) as store:
        wanted = replace(asked.filter, order="newest")
        found = find_signals(store.signals.index, wanted, limit=AUDITED)
        pairs = [(signal.chosen, signal.rejected) for signal in found if signal.kind == "pair"]
        flagged = {
            flag: count_signals(store.signals.index, replace(asked.filter, flag=flag))
            for flag in FLAGS
            if not asked.filter.flag
        }
    return page(
        request,
        "data/audit.html",
        asked=asked,
        findings=audit(pairs),
        flagged={flag: count for flag, count in flagged.items() if count},
        flag_words=FLAG_WORDS,
        read=len(pairs),
    )


@router.get("/data/export")
def export(desk: AtDesk, asked: AskedFor, shape: Literal["dlm", "trl", "openai", "csv"] = "dlm") -> Response:
    """The current filter as a file, as `dlm export-data` writes it."""
    ending = "csv" if shape == "csv" else "jsonl"
    handle = tempfile.NamedTemporaryFile(prefix="dlm-", suffix=f".{ending}", delete=False)  # noqa: SIM115
    handle.close()
    path = Path(handle.name)
    try:
        document = desk.project().document
        with reading(desk) as store:
            write_export(
                store,
                asked.filter,
                path,
                shape=shape,
                system_prompt=document.header.system_prompt if document else None,
                with_runs=False,
                force=True,
            )
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    name = f"{asked.filter.tab}{'' if shape == 'dlm' else f'-{shape}'}.{ending}"
    return FileResponse(
        path,
        filename=name,
        media_type="text/csv" if shape == "csv" else "application/jsonl",
        background=BackgroundTask(path.unlink, missing_ok=True),
    )


def _number(signal_id: int) -> int:
    """A number as SQLite can hold it; one that is larger is no signal's."""
    return signal_id if 0 <= signal_id < 2**53 else 0
