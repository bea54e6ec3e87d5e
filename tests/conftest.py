"""What all tests share: the number of examples per property (100 while working, `DLM_TEST_EXAMPLES=2000` in CI)."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from web_server import NO_CHROMIUM

# Models of a few thousand parameters gain nothing from threads, and beside another job a team of threads waits for its
# slowest member at every small product. Subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell that starts the tests in the background may have told them to ignore Ctrl-C, which some of them press.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "dlm",
    max_examples=int(os.environ.get("DLM_TEST_EXAMPLES", "100")),
    deadline=None,  # a busy machine is not a failure
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("dlm")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Browser tests that did not run are said loudly: a green line must not hide them."""
    skipped = [one for one in terminalreporter.stats.get("skipped", []) if NO_CHROMIUM in str(one.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"=== {len(skipped)} BROWSER TESTS DID NOT RUN: {NO_CHROMIUM}; install the package chromium, or set DLM_CHROMIUM ===",
            red=True,
            bold=True,
        )
