"""`dlm doctor`: what this machine has, and what dlm will therefore do."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import click

from dlm import __version__
from dlm.cli.extras import install_train, installed_versions
from dlm.cli.machine import ask_torch, free_disk_bytes, memory, usable_cores
from dlm.cli.output import Output, json_option, plural, size
from dlm.errors import DlmError

__all__ = ["doctor"]


@click.command()
@json_option
def doctor(output: Output) -> None:
    """What this machine has, and what dlm will do with it. Exit code 1 when something keeps dlm from working."""
    home, base = _home(), _base()
    packages = installed_versions()
    complete = all(packages.values())
    device, fault = None, ""
    if complete:
        output.note("asking torch what it finds …")
        device, fault = ask_torch(Path(base["path"]))
    if device is not None:
        base["fingerprint"] = device.pop("fingerprint")
    room = memory()
    data: dict[str, Any] = {
        "dlm": __version__,
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
        },
        "cores": usable_cores(),
        "memory": {"total_bytes": room.total, "available_bytes": room.available},
        "extras": {"train": {"installed": complete, "packages": packages}},
        "device": device,
        "home": home,
        "base": base,
        "bases": _names_of_bases(),
        "problems": [text for text in (home["problem"], base["problem"], fault) if text],
        "outlook": _outlook(complete, device),
    }
    _print(output, data)
    output.finish(data)
    if data["problems"]:
        click.get_current_context().exit(1)


def _home() -> dict[str, Any]:
    """The folder of all stores. Looks only; nothing is made."""
    from dlm.store import Home, home_root

    root = home_root()
    problem = ""
    try:
        Home.open()
    except DlmError as error:
        problem = str(error)
    existing = next((folder for folder in (root, *root.parents) if folder.exists()), root)
    writable = os.access(existing, os.W_OK)
    if not writable and not problem:
        problem = f"{existing} cannot be written: make it writable, or set DLM_HOME to another folder"
    stores = root / "store"
    return {
        "path": str(root),
        "from": "DLM_HOME" if os.environ.get("DLM_HOME") else "the platform's data folder",
        "exists": root.is_dir(),
        "writable": writable,
        "free_bytes": free_disk_bytes(root),
        "documents": sum(1 for _ in stores.iterdir()) if not problem and stores.is_dir() else 0,
        "problem": problem,
    }


def _base() -> dict[str, Any]:
    """The embedded base. Its fingerprint is added by who asks torch."""
    from dlm.bases import POCKET, resolve_base

    folder = Path(resolve_base(POCKET).location)
    files = [path for path in folder.rglob("*") if path.is_file()]
    whole = {"config.json", "tokenizer.json", "model.safetensors"} <= {path.name for path in files}
    return {
        "name": POCKET,
        "path": str(folder),
        "bytes": sum(path.stat().st_size for path in files),
        "fingerprint": None,
        "problem": "" if whole else f"the embedded base is not complete in {folder}: install dlm again",
    }


def _names_of_bases() -> list[str]:
    from dlm.bases import BASE_NAMES

    return list(BASE_NAMES)


def _outlook(complete: bool, device: dict[str, Any] | None) -> list[str]:
    """What dlm will therefore do, as sentences."""
    if device is not None:
        return [
            f"train, prompt and export compute on {device['device']}: {device['device_reason']}",
            f"weights are {device['dtype']}: {device['dtype_reason']}",
            f"a CPU computes on {plural(device['threads'], 'thread')}, and on one for a base as small as pocket; "
            "OMP_NUM_THREADS changes both",
        ]
    if complete:
        return ["train, prompt and export will not run until torch can be imported"]
    return [
        "init, check, show, metrics, promote, rollback and prune work",
        f"train, prompt, export and demo need the training extra: {install_train()}",
    ]


def _print(output: Output, data: dict[str, Any]) -> None:
    room, home, base = data["memory"], data["home"], data["base"]
    packages = data["extras"]["train"]["packages"]
    system = data["platform"]
    output.heading("This machine")
    items = {
        "dlm": data["dlm"],
        "python": f"{data['python']['version']}, {data['python']['executable']}",
        "platform": f"{system['system']} {system['release']}, {system['machine']}",
        "cores": str(data["cores"]),
        "memory": _memory(room["total_bytes"], room["available_bytes"]),
        "training": ", ".join(f"{name} {version or 'missing'}" for name, version in packages.items()),
    }
    if data["device"] and data["device"]["gpus"]:
        items["GPUs"] = "\n".join(
            f"{gpu['name']}, {size(gpu['memory_bytes'])}" for gpu in data["device"]["gpus"]
        )
    free = home["free_bytes"]
    items["home"] = (
        f"{home['path']} (from {home['from']}{'' if home['exists'] else '; will be made'}): "
        f"{plural(home['documents'], 'document')}{'' if free is None else f', {size(free)} free on its disk'}"
    )
    mark = f", fingerprint {base['fingerprint'][:16]}" if base["fingerprint"] else ""
    items["base"] = f"{base['name']}, {size(base['bytes'])}{mark}"
    items["bases"] = f"{', '.join(data['bases'])}; or hf:org/name, or ./folder"
    output.pairs(items)
    output.line()
    output.heading("So dlm will")
    for line in data["outlook"]:
        output.line(f"  {line}")
    if data["problems"]:
        output.line()
        output.heading("To mend")
        for line in data["problems"]:
            output.line(f"  {line}")


def _memory(total: int | None, available: int | None) -> str:
    if total is None:
        return "unknown"
    return size(total) + ("" if available is None else f", {size(available)} free")
