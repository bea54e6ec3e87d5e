"""What a Python grader may use for one answer."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Attributes:
    timeout_s: seconds for one answer, wall clock.
    memory_mb: address space of each process, MiB; of several that a file starts, each has as much.
    start_timeout_s: seconds for the file to be imported.
    network: allow it the network; without, it gets none where the system can take it away (Linux user namespaces).
    """

    timeout_s: float = 10.0
    memory_mb: int = 1024
    start_timeout_s: float = 60.0
    network: bool = False
