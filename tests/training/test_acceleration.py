"""Faster kernels, the same numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from dlm.training.acceleration import accelerated
from dlm.training.layout import Layout, Tree
from small_models import ARCHITECTURES, adapted, config_of, gradients, grown, relative

pytestmark = pytest.mark.torch
BATCH = [grown(1, 6, 4, 9), grown(2, 3, 5, 2)]


def loss_and_gradients(
    model: Any, batch: Sequence[Tree] = BATCH, name: str = "plain"
) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)  # of dropout
    scores = Layout.of(name, model, None, "cpu").scores(model, batch)
    loss = (torch.linspace(0.5, 2.0, len(scores.logprobs)) * scores.logprobs).sum()
    loss.backward()
    return loss.detach(), gradients(model)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_fp32_loss_and_gradients_are_those_of_the_librarys_own_layers(kind: str, dropout: float) -> None:
    model = adapted(config_of(kind), dropout=dropout).train()
    expected, expected_gradients = loss_and_gradients(model)
    with accelerated(model, "onednn"):
        found, found_gradients = loss_and_gradients(model)
    assert float((found - expected).abs() / expected.abs()) <= 1e-5
    assert relative(found_gradients, expected_gradients) <= 1e-5


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt_neox"])
def test_bf16_weights_lose_less_than_in_the_librarys_own_layers(kind: str) -> None:
    """Both round what enters the products; only ours keeps what flows between the layers in fp32."""
    config = config_of(kind, layers=8)
    model = adapted(config, dtype=torch.bfloat16)
    exact = adapted(config, dtype=torch.bfloat16).float()  # the same rounded weights, multiplied in fp32
    ours, theirs = [], []
    for seed in range(6):
        batch = [grown(seed, 6, 4, 9), grown(seed + 50, 3, 5, 2)]
        _, expected = loss_and_gradients(exact, batch)
        _, found = loss_and_gradients(model, batch)
        theirs.append(relative(found.float(), expected))
        with accelerated(model, "onednn"):
            ours.append(relative(loss_and_gradients(model, batch)[1], expected))
    assert statistics.mean(ours) < 0.8 * statistics.mean(theirs), (ours, theirs)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_everything_is_put_back(kind: str) -> None:
    model = adapted(config_of(kind))
    precision = torch.backends.mkldnn.matmul.fp32_precision
    ids = torch.arange(8)[None]
    before = model(input_ids=ids).logits
    with accelerated(model, "onednn"):
        assert any("forward" in vars(module) for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.backends.mkldnn.matmul.fp32_precision == precision
    assert torch.equal(model(input_ids=ids).logits, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_base_alone_and_the_whole_model_work_inside(dtype: torch.dtype) -> None:
    """A reference without the adapter, and sampling, run on the same model."""
    model = adapted(config_of("llama"), dtype=dtype)
    ids = torch.arange(8)[None]
    with torch.no_grad(), model.disable_adapter():
        base = model(input_ids=ids).logits.float()
        with accelerated(model, "onednn"):
            inside = model(input_ids=ids).logits.float()
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(inside, base, rtol=tolerance, atol=tolerance)
    with torch.no_grad():
        assert not torch.allclose(model(input_ids=ids).logits.float(), base, atol=0.2)


@pytest.mark.parametrize(("kind", "dora"), [("llama", True), ("gpt2", False)])
def test_layers_of_another_kind_are_left_alone(kind: str, dora: bool) -> None:
    model = adapted(config_of(kind), dora=dora)
    expected, expected_gradients = loss_and_gradients(model)
    with accelerated(model, "onednn"):
        assert not any("forward" in vars(module) for module in model.modules())
        found, found_gradients = loss_and_gradients(model)
    assert float((found - expected).abs() / expected.abs()) <= 1e-5
    assert relative(found_gradients, expected_gradients) <= 1e-5


def test_merged_adapters_compute_the_same_and_leave_no_trace() -> None:
    """While a policy only answers; the layers' own and the accelerated forward passes come back."""
    from dlm.training.merging import merged

    model = adapted(config_of("llama"))
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        expected = model(ids).logits
        with accelerated(model, "torch"):
            forwards = [module.__dict__.get("forward") for module in model.modules()]
            with merged(model):
                changed = [module.__dict__.get("forward") for module in model.modules()]
                found = model(ids).logits
            assert changed != forwards
            assert [module.__dict__.get("forward") for module in model.modules()] == forwards
        with merged(model):
            alone = model(ids).logits
        assert not any("forward" in module.__dict__ for module in model.modules())
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(alone, expected, atol=1e-4)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("kind", ["bf16", "dora", "gpt2"])
def test_what_cannot_be_merged_is_left_alone(kind: str) -> None:
    from dlm.training.merging import merged

    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    model = adapted(config_of("gpt2" if kind == "gpt2" else "llama"), dora=kind == "dora", dtype=dtype)
    with merged(model):
        assert not any("forward" in module.__dict__ for module in model.modules())
