"""What all tests share: the number of examples per property (100 while working, `DLM_TEST_EXAMPLES=2000` in CI)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "dlm",
    max_examples=int(os.environ.get("DLM_TEST_EXAMPLES", "100")),
    deadline=None,  # a busy machine is not a failure
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("dlm")
