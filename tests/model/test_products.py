"""Which library multiplies fp32 matrices: full precision comes first, and the choice is the same at every start."""

from __future__ import annotations

import pytest
import torch

from dlm.model import choose_products, matrix_products
from dlm.model import products as products_module

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(("error", "expected"), [(5e-5, "onednn"), (1e-2, "torch")])
def test_onednn_multiplies_where_it_is_as_exact(
    monkeypatch: pytest.MonkeyPatch, error: float, expected: str
) -> None:
    monkeypatch.setattr(products_module, "_largest_error", {"torch": 1e-5, "onednn": error}.__getitem__)
    chosen = choose_products.__wrapped__("cpu")
    assert chosen.value == expected
    assert ("rounds" in chosen.reason) == (expected == "torch")


def test_a_gpu_has_its_own() -> None:
    assert choose_products("cuda").value == "torch"


def test_what_is_chosen_here_is_exact() -> None:
    """As torch's own: sums of 1,024 products in fp32 are off by millionths."""
    assert products_module._largest_error(choose_products("cpu").value) < 1e-3


def test_the_setting_holds_only_within_the_context() -> None:
    setting = torch.backends.mkldnn.matmul
    before = setting.fp32_precision
    with matrix_products("torch"):
        assert setting.fp32_precision == before
    with matrix_products("onednn"):
        assert setting.fp32_precision == "bf16"
    assert setting.fp32_precision == before
