"""The other side of `python_file`: a process that runs a person's `grade(sample, item)` and nothing of dlm.

Started as a script in an isolated interpreter, it imports the standard library alone. First it shuts itself in: no network
and its own process numbers where Linux allows a user namespace, an address space of `memory_mb` (for it and for each process
that it starts, one by one), an end with the process that started it. Then it reads one JSON line with the file's source,
answers `{"ready": true, …}`, and from then on one line in, one line out.

Its answers go through a copy of stdout that the file does not see: what the file prints goes nowhere. A process that the
file forks off and that comes back from `grade` ends without a word.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import IO, Any

__all__: list[str] = []

_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG = 1
_MOST_WORDS = 300


class SampleParseError(Exception):
    """Raised by a grader whose sample is not of the form it reads. It is there by this name without an import."""


def _shut_in(network: bool) -> list[str]:
    """Take network and process numbers away as far as the system lets us, and say what was taken."""
    if not sys.platform.startswith("linux"):
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(
        _PR_SET_PDEATHSIG, signal.SIGKILL
    )  # nobody is left to end an endless loop when dlm itself is killed
    net = 0 if network else _CLONE_NEWNET
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWPID | net) == 0:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            try:
                with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                    file.write(text)
            except OSError:
                break  # unmapped: it is nobody, which reads what everybody may read
        _become_first_process(libc)
        return ["processes", *([] if network else ["network"])]
    if net and libc.unshare(net) == 0:
        return ["network"]
    return []


def _become_first_process(libc: Any) -> None:
    """Go on in a child that is process 1 of its namespace: with it ends whatever it has started, wherever that hid."""
    child = os.fork()
    if child == 0:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    os.close(0)
    os.close(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _limit_memory(megabytes: int) -> None:
    size = megabytes << 20
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):  # macOS knows the name and not the limit
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _words(fault: BaseException) -> str:
    try:
        text = str(fault)
    except BaseException:  # noqa: BLE001  a person's exception may raise in its own __str__
        text = ""
    name = type(fault).__name__
    return (f"{name}: {text}" if text else name)[:_MOST_WORDS]


def _score(value: Any) -> dict[str, Any]:
    if isinstance(value, (str, bytes)) or value is None:
        return {"error": f"grade returned {type(value).__name__}, not a number"}
    number = float(value)
    if not 0 <= number <= 1:  # NaN, too
        return {"error": f"grade returned {number}, not a number from 0 to 1"}
    return {"score": number}


def _answer(grade: Any, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return _score(grade(request["sample"], request["item"]))
    except SampleParseError as fault:
        return {"sample_parse": _words(fault)}
    except MemoryError:
        return {"error": "out of memory", "spent": True}
    except BaseException as fault:  # noqa: BLE001  SystemExit and KeyboardInterrupt of a grader cost this sample, too
        return {"error": _words(fault)}


def _load(source: str, path: str) -> Any:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # each thread of a numerical library takes address space
    sys.path.insert(0, os.path.dirname(path))
    space: dict[str, Any] = {
        "__name__": "dlm_grader",
        "__file__": path,
        "SampleParseError": SampleParseError,
    }
    exec(compile(source, path, "exec"), space)  # noqa: S102  the file a person consented to
    return space.get("grade")


def main() -> None:
    """Serve until the input ends."""
    taken = _shut_in(network=sys.argv[1] == "network")
    answers: IO[str] = os.fdopen(os.dup(1), "w", encoding="ascii")
    requests: IO[str] = os.fdopen(os.dup(0), encoding="ascii")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    own = os.getpid()

    def say(answer: dict[str, Any]) -> None:
        if os.getpid() != own:
            os._exit(0)  # forked off by the file
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    first = json.loads(requests.readline())
    _limit_memory(first["memory_mb"])
    try:
        grade = _load(first["source"], first["path"])
    except BaseException as fault:  # noqa: BLE001  whatever it raises, it cannot be used
        say({"ready": False, "error": _words(fault)})
        return
    if not callable(grade):
        say({"ready": False, "error": "it has no function grade(sample, item)"})
        return
    say({"ready": True, "taken": taken})
    while line := requests.readline():
        request = json.loads(line)
        say({"id": request["id"], **_answer(grade, request)})


if __name__ == "__main__":
    main()
