"""Faster decoding gives the library's numbers, and leaves the model as it was."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM

from dlm.model import Policy
from dlm.model.cache import make_cache, select_rows
from dlm.model.decoding import fast_decoding

pytestmark = pytest.mark.torch

SIZES = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 6,
    "initializer_range": 0.4,
}


def decode(model: torch.nn.Module, *, fast: bool, kept: list[int]) -> torch.Tensor:
    """Logits of eight steps after a padded prompt; after the fourth, only some of the rows go on."""
    torch.manual_seed(3)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(0, vocabulary, (9, 5))
    steps = torch.randint(0, vocabulary, (8, 9, 1))
    mask = torch.ones(9, 5, dtype=torch.long)
    mask[0, :3] = mask[1, :1] = 0
    found = []
    before = model.config._attn_implementation
    with fast_decoding(model, "cpu" if fast else "cuda") as whole, torch.no_grad():
        assert whole is (fast and before == "sdpa")
        cache = make_cache(model.config, whole=whole)
        for step in range(-1, 8):
            if step >= 0:
                ids, mask = steps[step], torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            if step == 4:
                select_rows(cache, torch.tensor(kept))
                mask = mask[kept]
                steps = steps[:, kept]
                ids = steps[step]
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            out = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            found.append(out.logits[:, -1].flatten())
    return torch.cat(found)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox", "gpt2", "sliding", "capped"])
@pytest.mark.parametrize(
    "kept", [[0, 1, 4, 7, 8], [3, 3, 0, 1, 2, 2, 2, 5, 6, 7, 8, 4]], ids=["fewer", "more"]
)
def test_the_numbers_are_the_library_s(name: str, kept: list[int], policies: dict[str, Policy]) -> None:
    torch.manual_seed(1)
    if name == "sliding":
        model = MistralForCausalLM(MistralConfig(**SIZES)).eval()
    elif name == "capped":
        model = Gemma2ForCausalLM(Gemma2Config(**SIZES, final_logit_softcapping=2.0)).eval()
    else:
        model = policies[name].model
    before = model.config._attn_implementation
    plain = decode(model, fast=False, kept=kept)
    torch.testing.assert_close(decode(model, fast=True, kept=kept), plain, rtol=1e-4, atol=1e-4)
    assert model.config._attn_implementation == before


def test_a_cache_of_whole_rooms_changes_its_shape_once_in_many_tokens() -> None:
    config = MistralConfig(**SIZES | {"sliding_window": None})
    cache = make_cache(config, whole=True)
    new = torch.randn(140, 3, 2, 1, 8)  # (steps, B, H, 1, D)
    cache.update(new[0].expand(-1, -1, 5, -1), new[0].expand(-1, -1, 5, -1), 0)
    sizes = []
    for step, states in enumerate(new, 6):
        expected = cache.get_mask_sizes(1, 0)
        keys, values = cache.update(states, states, 0)
        assert (keys.shape[2], 0) == (values.shape[2], 0) == expected
        assert cache.get_seq_length() == step
        assert torch.equal(keys[:, :, step - 1], states[:, :, 0])
        assert not keys[:, :, step:].any()
        assert not values[:, :, step:].any()
        sizes.append(keys.shape[2])
    assert sorted(set(sizes)) == [64, 128, 192]
    assert torch.equal(keys[:, :, 5:145], new.squeeze(3).permute(1, 2, 0, 3))


def test_the_model_is_left_alone_when_something_fails(policies: dict[str, Policy]) -> None:
    model = policies["llama"].model
    settings = torch.backends.mkldnn.matmul
    before = model.config._attn_implementation, settings.fp32_precision
    with pytest.raises(KeyError), fast_decoding(model, "cpu"):
        raise KeyError
    assert (model.config._attn_implementation, settings.fp32_precision) == before
