"""Freed memory stays with the process where its allocator can be told so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dlm.training.pages import keep_pages

pytestmark = pytest.mark.torch

PROBE = """
import ctypes, resource, sys
import numpy as np
{before}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def touch(megabytes):
    np.ones(megabytes << 17)  # 8 bytes each
touch(200)
began = faults()
for megabytes in range(100, 200, 10):
    touch(megabytes)
print(faults() - began)
"""


def page_faults(before: str) -> int:
    """Pages made anew while blocks of uneven sizes come and go, in a process of its own."""
    code = PROBE.format(before=before)
    return int(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_pages_are_kept() -> None:
    if not keep_pages():
        pytest.skip("not glibc's allocator")
    anew = page_faults("")
    kept = page_faults("from dlm.training.pages import keep_pages; keep_pages()")
    assert kept < anew / 10


def test_asking_again_changes_nothing() -> None:
    assert keep_pages() is keep_pages()
