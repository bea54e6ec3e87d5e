"""What this machine has: cores, memory, disk, devices. Nothing here imports torch; a short subprocess asks it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Memory", "ask_torch", "free_disk_bytes", "memory", "usable_cores"]

_ASK_TIMEOUT_S = 120.0  # a first import from a cold disk takes its time

# The model room's own choices, so that doctor says what training will do. Runs in a process of its own: importing
# torch takes seconds and memory, and a broken installation must not break `dlm doctor`.
_ASK = """
import json, sys
from pathlib import Path
import torch
from dlm.model.device import choose_device, choose_dtype
from dlm.model.fingerprint import fingerprint_folder
device = choose_device()
dtype = choose_dtype(None, device.value)
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
folder = Path(sys.argv[1])
print(json.dumps({
    "device": device.value, "device_reason": device.reason, "dtype": dtype.value, "dtype_reason": dtype.reason,
    "threads": torch.get_num_threads(),
    "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
    "fingerprint": fingerprint_folder(folder) if folder.is_dir() else None,
}))
"""


@dataclass(frozen=True)
class Memory:
    """Bytes this process may use in all, and those free now; None where the platform does not tell."""

    total: int | None
    available: int | None


def usable_cores() -> int:
    """Cores this process may run on: the scheduler's mask, and a container's quota where there is one."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota, _, period = _read(Path("/sys/fs/cgroup/cpu.max")).partition(" ")
    if quota.isdecimal() and period.strip().isdecimal():
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def memory() -> Memory:
    """The machine's memory, or the container's limit where that is less."""
    facts = dict(line.split(":", 1) for line in _read(Path("/proc/meminfo")).splitlines() if ":" in line)
    total, available = (_kib(facts.get(name, "")) for name in ("MemTotal", "MemAvailable"))
    if total is None:
        try:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError):
            return Memory(None, None)
    limit = _read(Path("/sys/fs/cgroup/memory.max")).strip()
    if limit.isdecimal() and int(limit) < total:
        total = int(limit)
        available = None if available is None else min(available, total)
    return Memory(total, available)


def free_disk_bytes(path: Path) -> int | None:
    """Bytes free on the disk that holds `path`, or would hold it; None when nothing can be said."""
    for folder in (path, *path.parents):
        if folder.exists():
            try:
                return shutil.disk_usage(folder).free
            except OSError:
                return None
    return None


def ask_torch(base_folder: Path) -> tuple[dict[str, Any] | None, str]:
    """What torch finds here and what dlm's model room chooses; None and the reason when it cannot be imported."""
    command = [sys.executable, "-c", _ASK, str(base_folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return None, f"importing torch took more than {_ASK_TIMEOUT_S:.0f} s"
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return dict(json.loads(lines[-1])), ""
    reason = next(iter(reversed(done.stderr.splitlines())), "") or f"exit code {done.returncode}"
    return None, f"torch cannot be used: {reason}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _kib(text: str) -> int | None:
    words = text.split()
    return int(words[0]) * 1024 if words and words[0].isdecimal() else None
