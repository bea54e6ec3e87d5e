"""What `--json` prints, against the committed schemas."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from dlm.cli.groups import leaves
from dlm.cli.main import app
from dlm.cli.output import SCHEMA_VERSIONS

from .conftest import BODY, HEADER, Dlm, Train

SCHEMAS = {
    path.name.removesuffix(".json"): json.loads(path.read_text(encoding="utf-8"))
    for path in (resources.files("dlm.cli") / "schemas").iterdir()
    if path.name.endswith(".json")
}


def validate(envelope: Any) -> dict[str, Any]:
    """Hold an envelope against the schema it names; returns its data."""
    name = envelope["schema"].split("/")[1]
    jsonschema.validate(envelope, SCHEMAS[name], cls=jsonschema.Draft202012Validator)
    return dict(envelope["data"] or {})


OPENAI_SHAPED = ("checkpoints",)  # a format of somebody else's, without our envelope


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_are_schemas_and_name_themselves(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    expected = f"dlm/{name}/{SCHEMA_VERSIONS.get(name, 1)}"
    assert SCHEMAS[name]["$id"] == expected
    if name not in OPENAI_SHAPED:
        assert SCHEMAS[name]["properties"]["schema"]["const"] == expected


def test_every_command_that_prints_json_has_a_schema() -> None:
    printing = {
        name.replace(" ", "-")
        for name, command, _ in leaves(app, click.Context(app))
        if any("--json" in param.opts for param in command.params)
    }
    assert printing | {"error"} == set(SCHEMAS)


def test_light_commands(dlm: Dlm, train: Train) -> None:
    Path("bad.dlm").write_text("no header\n", encoding="utf-8")
    Path("copy.dlm").write_text(HEADER + BODY, encoding="utf-8")
    Path("plain.dlm").write_text(BODY, encoding="utf-8")
    validate(dlm.json("show", "notes.dlm"))
    validate(dlm.json("init", "new.dlm"))
    validate(dlm.json("init", "--new-id", "copy.dlm"))
    validate(dlm.json("init", "--adopt", "plain.dlm"))
    validate(dlm.json("check", "notes.dlm", "bad.dlm", expect=1))
    train()
    train()
    train(status="failed", message="it went wrong")
    validate(dlm.json("show", "notes.dlm"))
    validate(dlm.json("metrics", "notes.dlm"))
    validate(dlm.json("rollback", "notes.dlm"))
    validate(dlm.json("promote", "notes.dlm", "v0002", "--reason", "better"))
    validate(dlm.json("prune", "notes.dlm", "--dry-run"))
    validate(dlm.json("prune", "notes.dlm", "--version", "v0001", "--keep-last", "0", expect=0))
    validate(dlm.json("show", "notes.dlm"))


def test_errors(dlm: Dlm, document: Path) -> None:
    validate(dlm.json("metrics", "notes.dlm", expect=1))
    validate(dlm.json("show", "missing.dlm", expect=2))
    validate(dlm.json("show", expect=2))
    Path("bad.dlm").write_text("no header\n", encoding="utf-8")
    envelope = dlm.json("show", "bad.dlm", expect=1)
    validate(envelope)
    assert envelope["error"]["type"] == "DocumentError"
    assert envelope["error"]["problems"][0]["path"] == "bad.dlm"
    assert "--adopt" in envelope["error"]["next_step"]
