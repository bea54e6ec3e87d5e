"""What all tests share: the number of examples per property (100 while working, `DLM_TEST_EXAMPLES=2000` in CI)."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

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
