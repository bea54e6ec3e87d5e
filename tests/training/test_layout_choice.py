"""The layout of a run: chosen by trial, with a reason; what does not fit is not used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, MistralConfig, MptConfig

from dlm.errors import UsageError
from dlm.model import can_run_headless
from dlm.training import layout_choice
from dlm.training.layout import LAYOUT_NAMES, Layout
from dlm.training.layout_choice import choose_layout
from small_models import VOCABULARY, adapted, config_of, grown

pytestmark = pytest.mark.torch
PAIRS = [grown(seed, 6 + 5 * seed, 4, 3 + seed) for seed in range(5)]
ROWS = [grown(seed, 6, 4 + 9 * seed) for seed in range(5)]
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def test_a_prompt_that_two_answers_share_is_encoded_once() -> None:
    model = adapted(config_of("llama"))
    choice = choose_layout(model, PAIRS, 0, "cpu")
    assert choice.value.name in ("shared", "packed_shared")
    assert "fewer positions than plain" in choice.reason
    assert all(parameter.grad is None for parameter in model.parameters())


def test_rows_of_one_answer_are_packed_where_padding_costs() -> None:
    model = adapted(config_of("llama"))
    uneven = [grown(1, 2, 2), grown(2, 2, 2), grown(3, 50, 50)]
    assert choose_layout(model, uneven, 0, "cpu").value.name in ("packed", "packed_shared")


class _Passes:
    """Counts the tokens of every pass, and says how long one took: by layout, for a warm-up and for what is timed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: Mapping[str, tuple[float, float]]) -> None:
        self.timed: list[tuple[str, int]] = []
        self.read: list[int] = []
        self._begun = False
        self._seconds = seconds
        monkeypatch.setattr(layout_choice, "_pass_seconds", self._pass)
        scores = Layout.scores

        def counted(layout: Layout, model: Any, rows: Sequence[Any], **more: Any) -> Any:
            self.read.append(_tokens(rows))
            return scores(layout, model, rows, **more)

        monkeypatch.setattr(Layout, "scores", counted)

    def _pass(self, model: object, layout: Layout, rows: Sequence[Any]) -> float:
        if not self._begun:  # the first pass of all is not counted
            self._begun = True
            return 9.0
        before = [name for name, _ in self.timed].count(layout.name)
        self.timed.append((layout.name, _tokens(rows)))
        return self._seconds[layout.name][before]


def _tokens(rows: Sequence[Any]) -> int:
    return sum(len(row.prompt) + sum(map(len, row.branches)) for row in rows)


LONG = [grown(seed, 500, 700, 700, 700, 700) for seed in range(4)]  # two of them: 6,600 tokens


@pytest.mark.parametrize(
    ("planned", "least", "most"),
    [(None, 2000, 2100), (1000, 2000, 2100), (40, 2000, 2100), (8, 600, 700), (1, 250, 270)],
)
def test_long_rows_are_cut_and_a_short_run_is_tried_less(
    monkeypatch: pytest.MonkeyPatch, planned: int | None, least: int, most: int
) -> None:
    passes = _Passes(monkeypatch, dict.fromkeys(LAYOUT_NAMES, (1.0, 1.0)))
    model = adapted(config_of("llama"))
    choice = choose_layout(model, LONG, 0, "cpu", planned_rows=planned)
    assert {name for name, _ in passes.timed} == {"shared", "packed_shared"}
    assert max(passes.read) <= 530  # what is compared with the plain layout
    assert least <= max(size for _, size in passes.timed) <= most
    if planned and planned > 1:
        assert sum(size for _, size in passes.timed) <= 0.1 * planned * 3300 + 3 * 270
    assert " tokens forward and backward" in choice.reason


@pytest.mark.parametrize(("planned", "read"), [(72, 825), (2000, 1650)])
def test_a_short_run_reads_one_row_whole_since_attention_shows_in_whole_rows_alone(
    monkeypatch: pytest.MonkeyPatch, planned: int, read: int
) -> None:
    groups = [grown(seed, 57, *[96] * 8) for seed in range(4)]
    passes = _Passes(monkeypatch, dict.fromkeys(LAYOUT_NAMES, (1.0, 1.0)))
    choose_layout(adapted(config_of("llama")), groups, 0, "cpu", planned_rows=planned)
    assert max(size for _, size in passes.timed) == read


@pytest.mark.parametrize(
    ("shared", "packed_shared", "chosen", "timed"),
    [
        ((2.0, 5.0), (1.5, 4.0), "packed_shared", 2),
        ((2.9, 3.0), (1.5, 4.0), "shared", 2),  # the warm-up is near, and what is timed decides
        ((3.1, 1.0), (1.5, 4.0), "packed_shared", 1),  # clearly slower in the warm-up: not timed
    ],
)
def test_a_layout_that_is_clearly_slower_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
    shared: tuple[float, float],
    packed_shared: tuple[float, float],
    chosen: str,
    timed: int,
) -> None:
    passes = _Passes(monkeypatch, {"shared": shared, "packed_shared": packed_shared})
    model = adapted(config_of("llama"))
    choice = choose_layout(model, LONG, 0, "cpu")
    assert choice.value.name == chosen
    assert sum(size > 2000 for _, size in passes.timed) == timed
    assert ("clearly slower" in choice.reason) == (timed == 1)


def test_rows_of_one_answer_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = _Passes(monkeypatch, {"plain": (1.0, 1.0), "packed": (2.0, 0.5)})
    alike = [grown(seed, 6, 9) for seed in range(4)]
    choice = choose_layout(adapted(config_of("llama")), alike, 0, "cpu")
    assert {name for name, _ in passes.timed} == {"plain", "packed"}
    assert choice.value.name == "packed"  # of two passes over the same rows the shorter one counts
    assert choose_layout(adapted(config_of("llama")), alike, 0, "cpu", wanted="shared").value.name == "shared"


def test_a_layout_can_be_named() -> None:
    model = adapted(config_of("gpt_neox"))
    for name in ("plain", "packed", "shared", "packed_shared"):
        choice = choose_layout(model, PAIRS, 0, "cpu", wanted=name)
        assert choice.value == Layout(name, 0, "cpu", True)
        assert choice.reason == "as set"


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (Gemma2Config(**SMALL, final_logit_softcapping=3.0, sliding_window=4), "whole row"),
        (MistralConfig(**SMALL, sliding_window=4), "whole row"),
        (MptConfig(vocab_size=VOCABULARY, d_model=16, n_heads=4, n_layers=2), "does not take it"),
    ],
)
def test_bases_that_break_the_other_layouts_fall_back_to_the_plain_one(config: object, why: str) -> None:
    model = adapted(config)  # type: ignore[arg-type]
    choice = choose_layout(model, PAIRS, 0, "cpu")
    assert choice.value.name == "plain"
    assert why in choice.reason
    with pytest.raises(UsageError, match="does not fit"):
        choose_layout(model, PAIRS, 0, "cpu", wanted="packed")


def test_capped_logits_are_scored_by_the_whole_model() -> None:
    config = Gemma2Config(
        **SMALL,
        final_logit_softcapping=1.0,
        attn_logit_softcapping=None,
        layer_types=["full_attention"] * 2,
    )
    model = adapted(config)
    choice = choose_layout(model, PAIRS, 0, "cpu")
    assert not choice.value.headless
    assert "after its head" in choice.reason
    plain = Layout.of("plain", model, 0, "cpu").scores(model, PAIRS).logprobs
    torch.testing.assert_close(choice.value.scores(model, PAIRS).logprobs, plain, rtol=0, atol=1e-4)


def test_a_cap_is_seen_on_logits_too_small_for_it_to_show() -> None:
    """A model of random weights learns, and then its logits reach the cap."""
    config = Gemma2Config(**SMALL, final_logit_softcapping=30.0)
    assert not can_run_headless(AutoModelForCausalLM.from_config(config))
    config.final_logit_softcapping = None
    assert can_run_headless(AutoModelForCausalLM.from_config(config))


def test_a_base_whose_numbers_differ_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions that a base ignores: the second answer would stand in the wrong place."""
    model = adapted(config_of("llama"))
    rotary = model.get_base_model().model.rotary_emb
    real = rotary.forward

    def deaf(states: torch.Tensor, position_ids: torch.Tensor) -> object:
        return real(states, torch.arange(position_ids.shape[1])[None].expand(position_ids.shape))

    monkeypatch.setattr(rotary, "forward", deaf)
    choice = choose_layout(model, PAIRS, 0, "cpu")
    assert choice.value.name in (
        "plain",
        "packed",
    )  # rotary positions are relative: a row shifted whole is the same row
    assert "packed_shared does not fit: this base gives other log-probs" in choice.reason


def test_dropout_inside_attention_keeps_to_layouts_that_have_it() -> None:
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4, n_positions=128, attn_pdrop=0.1
    )
    choice = choose_layout(adapted(config).train(), PAIRS, 0, "cpu")
    assert choice.value.name == "shared"


def test_noise_on_the_embeddings_keeps_the_plain_layout() -> None:
    choice = choose_layout(adapted(config_of("llama")), PAIRS, 0, "cpu", embedding_noise=True)
    assert choice.value.name == "plain"
    assert "neftune_alpha" in choice.reason
