"""The libraries that are served are the ones that were looked at: their hashes, and no markup without escaping."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import dlm.web

WEB = Path(dlm.web.__file__).parent
VENDOR = WEB / "static" / "vendor"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"


def test_vendored_files_have_the_hashes_of_their_list() -> None:
    listed = dict(
        re.findall(r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(), re.M)
    )
    served = {path.name for path in VENDOR.iterdir() if path.suffix in (".js", ".css")}
    assert set(listed) == served
    for name, wanted in listed.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == wanted


def test_every_vendored_library_brings_its_licence() -> None:
    for licence in re.findall(r"`([\w-]+-LICENSE\.txt)`", (VENDOR / "README.md").read_text()):
        assert (VENDOR / licence).read_text().strip()


def test_the_checker_of_pages_is_the_one_that_was_looked_at() -> None:
    path = Path(__file__).parent / "axe-4.14.1.min.js"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == AXE_SHA256


def test_no_template_and_no_module_turns_escaping_off() -> None:
    for path in [*(WEB / "templates").rglob("*.html"), *WEB.glob("*.py")]:
        assert not re.search(r"\|\s*safe\b|autoescape false|Markup\(", path.read_text(encoding="utf-8")), path
    for path in (WEB / "static" / "js").glob("*.js"):
        assert not re.search(
            r"(inner|outer)HTML\s*[+=]|insertAdjacentHTML|document\.write", path.read_text(encoding="utf-8")
        ), path


def test_pages_have_no_inline_scripts_or_styles() -> None:
    for path in (WEB / "templates").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|<style|\son[a-z]+=|hx-on|javascript:", text), (
            path
        )
        assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", text), path
