"""The app: tabs, static files and the answers to faults, put together. One process, one document, no torch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from dlm import __version__
from dlm.errors import DlmError
from dlm.web import data_actions, data_tab, live, prompt_tab, static_files, training_actions, training_tab
from dlm.web.answerer import Answerer
from dlm.web.desk import Desk
from dlm.web.live import Feed, Watcher
from dlm.web.memory import Memory
from dlm.web.pages import fault_page
from dlm.web.security import Guard, Keys

__all__ = ["create_app"]


def create_app(desk: Desk, keys: Keys) -> FastAPI:
    """The app for one document. Everything but `Guard` may assume that the caller is the person at this machine."""
    app = FastAPI(title="dlm", version=__version__, docs_url=None, redoc_url=None, lifespan=_alive)
    app.state.desk, app.state.keys = desk, keys
    app.state.memory, app.state.feed, app.state.answerer = Memory(), Feed(), Answerer(desk.path)
    app.add_middleware(Guard, keys=keys)
    app.add_exception_handler(DlmError, _on_fault)
    app.add_exception_handler(HTTPException, _on_fault)
    app.add_exception_handler(RequestValidationError, _on_misuse)
    app.add_route("/static/{name:path}", static_files.answer, include_in_schema=False)
    app.add_api_route("/", _home, include_in_schema=False)
    for tab in (training_tab, training_actions, data_tab, data_actions, prompt_tab, live):
        app.include_router(tab.router)
    return app


@asynccontextmanager
async def _alive(app: FastAPI) -> AsyncIterator[None]:
    """The store is watched while the server runs."""
    feed: Feed = app.state.feed
    feed.open(asyncio.get_running_loop())
    watcher = Watcher(app.state.desk, feed, app.state.memory.trainers)
    watcher.start()
    try:
        yield
    finally:
        feed.end()
        app.state.answerer.end()
        watcher.end()


def _home(request: Request) -> Response:
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"/training{query}", status_code=303)


async def _on_fault(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, DlmError | HTTPException)
    return fault_page(request, fault)


async def _on_misuse(request: Request, fault: Exception) -> Response:
    """A parameter that cannot be read: named with what is expected of it, without echoing what was sent."""
    assert isinstance(fault, RequestValidationError)
    wrong = {".".join(str(part) for part in error["loc"][1:]): error["msg"] for error in fault.errors()}
    title = f"these parameters cannot be read: {', '.join(sorted(wrong))}"
    expected = [f"{name}: {message}" for name, message in sorted(wrong.items())]
    return fault_page(request, HTTPException(422, title), expected)
