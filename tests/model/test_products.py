"""Which library multiplies fp32 matrices is found out by measuring, and full precision comes first."""

from __future__ import annotations

import pytest
import torch

from dlm.model import choose_products, matrix_products
from dlm.model import products as products_module

pytestmark = pytest.mark.torch


def test_products_are_chosen_by_speed_at_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_products("cuda", "fp32").value == "torch"
    times = iter([1.0, 0.5, 9.0, 0.7] * 2 + [1.0, 1.0, 1.2, 3.0] * 2)
    monkeypatch.setattr(products_module, "_REPEATS", 4)
    monkeypatch.setattr(products_module, "_seconds", lambda call: next(times))
    fast = choose_products("cpu", "fp32")
    assert fast.value == "onednn"
    assert "2.0×" in fast.reason
    slow = choose_products("cpu", "fp32")
    assert slow.value == "torch"
    assert "1.0×" in slow.reason
    monkeypatch.setattr(products_module, "_largest_error", lambda name: {"torch": 1e-5, "onednn": 1e-2}[name])
    for dtype in ("fp32", "bf16"):  # the head of a bf16 base is multiplied in fp32, too
        rounded = choose_products("cpu", dtype)
        assert rounded.value == "torch"
        assert "rounds" in rounded.reason


def test_the_setting_holds_only_within_the_context() -> None:
    setting = torch.backends.mkldnn.matmul
    before = setting.fp32_precision
    with matrix_products("torch"):
        assert setting.fp32_precision == before
    with matrix_products("onednn"):
        assert setting.fp32_precision == "bf16"
    assert setting.fp32_precision == before
