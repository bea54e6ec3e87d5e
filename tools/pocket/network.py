"""The forward pass used for training: the weights of a Hugging Face Llama, run over one flat pack.

Attention runs document by document, so nothing is padded or masked, and the head runs only on positions
that count. `check_forward` proves it equal to the library's own forward pass before training starts.

Notation: N tokens of a pack, C model width, H heads, K key-value heads, E head size, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from tools.pocket.packing import CONTEXT, Pack

__all__ = ["check_forward", "hidden_states", "make_model", "pack_loss"]

SHAPE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
}


def make_model(vocabulary: int, seed: int, **ids: int) -> LlamaForCausalLM:
    """A fresh model of `SHAPE`; `ids` are the special tokens' numbers for the config."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        initializer_range=0.04,
        **SHAPE,
        **ids,
    )
    return LlamaForCausalLM(config)


def _rotary(positions: Tensor, config: LlamaConfig) -> tuple[Tensor, Tensor]:
    size = config.head_dim
    rates = 1.0 / (10000.0 ** (torch.arange(0, size, 2, dtype=torch.float32) / size))
    angles = positions.float()[:, None] * rates[None]  # (N, E/2)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos()[:, None], angles.sin()[:, None]  # (N, 1, E)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def hidden_states(model: LlamaForCausalLM, pack: Pack, dtype: torch.dtype) -> Tensor:
    """The final normed states (N, C): residual stream in fp32, matrix products in `dtype`."""
    config = model.config
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    cos, sin = _rotary(pack.positions, config)
    x = functional.embedding(pack.ids, model.model.embed_tokens.weight)  # (N, C)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        h = functional.rms_norm(x, (x.shape[-1],), layer.input_layernorm.weight, config.rms_norm_eps).to(
            dtype
        )
        weight = torch.cat((attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)).to(
            dtype
        )
        # fp32 from here: SDPA's backward pass on CPU is twice as fast in fp32 as in bf16 at these sizes.
        q, k, v = (
            functional.linear(h, weight).float().view(len(x), -1, size).split((heads, groups, groups), dim=1)
        )  # (N, H|K, E)
        q, k = _turn(q, cos, sin), _turn(k, cos, sin)
        mixed = torch.cat([_attend(q[a:b], k[a:b], v[a:b]) for a, b in pack.spans])
        x = x + functional.linear(mixed.to(dtype), attention.o_proj.weight.to(dtype)).float()
        h = functional.rms_norm(
            x, (x.shape[-1],), layer.post_attention_layernorm.weight, config.rms_norm_eps
        ).to(dtype)
        gate, up = functional.linear(
            h, torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)).to(dtype)
        ).chunk(2, dim=-1)
        x = x + functional.linear(functional.silu(gate) * up, mlp.down_proj.weight.to(dtype)).float()
    return functional.rms_norm(x, (x.shape[-1],), model.model.norm.weight, config.rms_norm_eps)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention within one document: (T, H, E) to (T, C)."""
    out = functional.scaled_dot_product_attention(
        q.transpose(0, 1)[None],
        k.transpose(0, 1)[None],
        v.transpose(0, 1)[None],
        is_causal=True,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out[0].transpose(0, 1).reshape(len(q), -1)


def pack_loss(model: LlamaForCausalLM, pack: Pack, dtype: torch.dtype) -> tuple[Tensor, float]:
    """The weighted mean loss to descend, and the plain mean over answers and prose to report."""
    states = hidden_states(model, pack, dtype)
    scored = pack.weights.nonzero().squeeze(1)
    logits = functional.linear(states[scored].to(dtype), model.lm_head.weight.to(dtype)).float()
    losses = functional.cross_entropy(logits, pack.targets[scored], reduction="none")
    weights = pack.weights[scored]
    loss = (losses * weights).sum() / weights.sum()
    full = weights >= 1.0
    return loss, float(losses.detach()[full].mean()) if bool(full.any()) else float("nan")


def check_forward(model: LlamaForCausalLM, pack: Pack) -> float:
    """Largest difference of the logits from the library's, in fp32, over the first documents of a pack."""
    model.eval()
    worst = 0.0
    with torch.no_grad():
        mine = functional.linear(hidden_states(model, pack, torch.float32), model.lm_head.weight)
        for a, b in pack.spans[:3]:
            theirs = model(input_ids=pack.ids[None, a:b], position_ids=pack.positions[None, a:b]).logits[0]
            worst = max(worst, float((mine[a:b] - theirs).abs().max()))
    return worst
