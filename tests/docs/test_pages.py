"""What the pages say exists: commands, options, files, metric names, and documents that parse."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from dlm.cli.main import COMMANDS, app
from dlm.document import parse
from dlm.errors import DocumentError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MENTION = re.compile(r"\bdlm ([a-z]+(?:-[a-z]+)*)((?:[^\n`|]|\\\|)*)")
HEADER = "---\ndlm_id: 01ARZ3NDEKTSV4RRFFQ69G5FAV\nbase_model: pocket\n---\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page: Path) -> None:
    context = click.Context(app)
    for name, rest in MENTION.findall(page.read_text(encoding="utf-8")):
        if name not in COMMANDS:
            assert not rest.strip().startswith(("--", "DOC")), f"{page.name}: dlm {name}"
            continue  # prose such as "dlm trains"
        command = app.get_command(context, name)
        for word in rest.split():
            if not isinstance(command, click.Group) or not (word.isalpha() and word.islower()):
                break  # COMMAND and [OPTIONS] stand for something else
            command = command.get_command(context, word)
        assert command is not None, f"{page.name}: dlm {name}{rest}"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for option in re.findall(r"(?<!\S)\[?(--[a-z-]+)", rest):
            assert option in known, f"{page.name}: dlm {name} {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_document_parses(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if "::instruction::\n" in block:
            document = parse(block if block.startswith("---") else HEADER + block)
            assert any(question.probe for section in document.sections for question in section.questions)


def test_the_check_above_can_fail() -> None:
    with pytest.raises(DocumentError):
        parse(HEADER + "::Instruction::\n### Q\n")


def test_the_makefile_s_targets_are_those_the_pages_name() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^    |`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= targets, page.name
    assert {"demo", "test", "quick", "slow", "lint", "bench", "pocket"} <= targets
