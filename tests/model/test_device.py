"""Threads: one for a small base, the machine's for a large one, and the environment's word above both."""

from __future__ import annotations

import pytest
import torch

from dlm.bases import resolve_base
from dlm.model import load_policy
from dlm.model.device import choose_threads

pytestmark = pytest.mark.torch


def test_threads_follow_the_size_unless_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert choose_threads(10).reason == "OMP_NUM_THREADS"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert choose_threads(2_000_000).value == 1
    assert choose_threads(135_000_000).value == torch.get_num_threads()


def test_loading_pocket_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    try:
        torch.set_num_threads(2)
        policy = load_policy(resolve_base("pocket"), device="cpu")
        assert policy.threads.value == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
