"""The PROMPT tab: ask a version, or two side by side."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from dlm.web.desk import AtDesk
from dlm.web.pages import page

__all__ = ["router"]

router = APIRouter()


@router.get("/prompt")
def show(request: Request, desk: AtDesk) -> HTMLResponse:
    """The tab's page."""
    return page(request, "prompt.html", tab="prompt")
