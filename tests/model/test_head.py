"""The head in tiles: log-probs and their derivative against autograd over the whole matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Gemma2Config

from dlm.model import can_run_headless, inner_model, score_targets
from dlm.model import head as head_module
from small_models import VOCABULARY, adapted, config_of

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def model() -> Any:
    return adapted(config_of("llama"))


@pytest.mark.parametrize("tile", [1, 3 * VOCABULARY, 1 << 24])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_derivative_are_those_of_the_whole_softmax(
    model: Any, tile: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_module, "_TILE_ENTRIES", tile)
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(10, 16, generator=generator).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (10,), generator=generator)
    upstream = torch.randn(10, generator=generator)
    found = score_targets(model, states, targets, headless=True, temperature=temperature, entropy=True)
    (found.logprobs * upstream).sum().backward()
    derivative, states.grad = states.grad, None
    weight = inner_model(model).get_output_embeddings().weight.detach().double()
    logp = ((states.double() @ weight.t()) / temperature).log_softmax(-1)
    expected = logp.gather(1, targets[:, None]).squeeze(1)
    (expected * upstream).sum().backward()
    torch.testing.assert_close(found.logprobs.double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(derivative, states.grad, rtol=1e-5, atol=1e-6)
    assert found.entropy is not None
    torch.testing.assert_close(found.entropy.double(), -(logp.exp() * logp).sum(-1), rtol=0, atol=1e-5)


def test_no_matrix_of_tokens_by_vocabulary_is_kept(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "_TILE_ENTRIES", 4 * VOCABULARY)
    widest: list[int] = []
    real = head_module.linear

    def watched(rows: torch.Tensor, *args: Any) -> torch.Tensor:
        widest.append(len(rows))
        return real(rows, *args)

    monkeypatch.setattr(head_module, "linear", watched)
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    states = torch.randn(50, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        score_targets(model, states, torch.zeros(50, dtype=torch.long), headless=True)
    assert max(widest) == 4
    assert sum(widest) == 50
    assert sum(kept) == 50 * 16


def test_a_bf16_heads_log_probs_are_summed_in_fp32() -> None:
    """A log-prob made of bf16 logits would be wrong in the second decimal."""
    model = adapted(config_of("llama"), dtype=torch.bfloat16)
    states = 4 * torch.randn(30, 16)
    targets = torch.randint(0, VOCABULARY, (30,))
    found = score_targets(model, states, targets, headless=True)
    weight = inner_model(model).get_output_embeddings().weight.detach().double()
    logp = (states.double() @ weight.t()).log_softmax(-1)
    expected = logp.gather(1, targets[:, None]).squeeze(1)
    torch.testing.assert_close(found.logprobs.double(), expected, rtol=0, atol=1e-4)


def test_a_base_that_caps_its_logits_is_found_out() -> None:
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=1.0,
    )
    assert not can_run_headless(adapted(config))
    assert can_run_headless(adapted(config_of("llama")))
