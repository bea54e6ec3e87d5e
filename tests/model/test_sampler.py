"""The sampler: greedy like the library's, the same alone and in company, and true to the model's distribution."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM

from bases_on_the_spot import ARCHITECTURES
from dlm.errors import ContextLengthError, NonFiniteError, UsageError
from dlm.model import Policy, Sample, Settings, completion_logprobs, sample, stream
from dlm.model import sampler as sampler_module

pytestmark = pytest.mark.torch

QUESTIONS = ("Hi", "What is the answer, and who is there?", "Why?", "Hi", "How should they be short?")


def prompts_of(policy: Policy) -> list[list[int]]:
    return [policy.chat.prompt_ids(question) for question in QUESTIONS]


def generate(policy: Policy, prompt: list[int], **options: Any) -> list[int]:
    output = policy.model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        eos_token_id=sorted(policy.chat.stop_ids),
        pad_token_id=0,
        **options,
    )
    return [int(token) for token in output[0][len(prompt) :]]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_generate_in_one_batch(policy: Policy, penalty: float) -> None:
    settings = Settings(temperature=0, max_new_tokens=24, repetition_penalty=penalty)
    got = sample(policy, prompts_of(policy), settings, range(len(QUESTIONS)))
    for prompt, answer in zip(prompts_of(policy), got, strict=True):
        assert list(answer.ids) == generate(policy, prompt, max_new_tokens=24, repetition_penalty=penalty)
        assert answer.finish_reason == ("stop" if answer.ids[-1] in policy.chat.stop_ids else "length")


def _other(config: Any, kind: Any, policy: Policy) -> Policy:
    torch.manual_seed(1)
    model = kind(config).eval()
    return dataclasses.replace(policy, model=model)


@pytest.fixture
def sliding(llama: Policy) -> Policy:
    config = MistralConfig(
        vocab_size=len(llama.tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, sliding_window=8, initializer_range=0.4,
    )  # fmt: skip
    return _other(config, MistralForCausalLM, llama)


@pytest.fixture
def capped(llama: Policy) -> Policy:
    config = Gemma2Config(
        vocab_size=len(llama.tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, sliding_window=8, initializer_range=0.4,
        final_logit_softcapping=2.0,
    )  # fmt: skip
    return _other(config, Gemma2ForCausalLM, llama)


@pytest.mark.parametrize("name", ["sliding", "capped"])
def test_architectures_with_windows_and_caps_go_the_same_way(
    name: str, request: pytest.FixtureRequest
) -> None:
    policy: Policy = request.getfixturevalue(name)
    settings = Settings(temperature=0, max_new_tokens=16)
    answers = sample(policy, prompts_of(policy), settings, range(len(QUESTIONS)))
    for prompt, answer in zip(prompts_of(policy), answers, strict=True):
        assert list(answer.ids) == generate(policy, prompt, max_new_tokens=16)
    rows = [(prompt, answer.ids) for prompt, answer in zip(prompts_of(policy), answers, strict=True)]
    for values, answer in zip(completion_logprobs(policy.model, rows), answers, strict=True):
        torch.testing.assert_close(values, torch.tensor(answer.logprobs), rtol=0, atol=1e-4)


def test_the_batch_does_not_matter(policy: Policy) -> None:
    settings = Settings(temperature=0.8, top_p=0.9, top_k=50, max_new_tokens=40)
    prompts, seeds = prompts_of(policy) * 3, list(range(15))
    together = sample(policy, prompts, settings, seeds)
    alone = [
        sample(policy, [prompt], settings, [seed])[0] for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    backwards = sample(policy, prompts[::-1], settings, seeds[::-1])[::-1]
    assert [row.ids for row in together] == [row.ids for row in alone] == [row.ids for row in backwards]
    assert len({row.ids for row in together}) > 5


def test_small_batches_change_nothing(llama: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(max_new_tokens=20)
    prompts, seeds = prompts_of(llama) * 2, list(range(10))
    whole = sample(llama, prompts, settings, seeds)
    for name, limit in (("_MOST_ROWS", 3), ("_PREFILL_TOKENS", 60), ("_CACHE_BYTES", 20_000)):
        with monkeypatch.context() as patch:
            patch.setattr(sampler_module, name, limit)
            count = len(list(sampler_module._batches(llama.model, [
                sampler_module._make_row(llama, index, prompt, settings, 0) for index, prompt in enumerate(prompts)
            ])))  # fmt: skip
            assert count > 1
            assert [row.ids for row in sample(llama, prompts, settings, seeds)] == [row.ids for row in whole]


def test_equal_prompts_are_read_once(llama: Policy) -> None:
    read: list[tuple[int, ...]] = []
    handle = llama.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        sample(llama, [prompts_of(llama)[0]] * 6, Settings(max_new_tokens=3), range(6))
    finally:
        handle.remove()
    assert read[0] == (1, len(prompts_of(llama)[0]))
    assert read[1] == (6, 1)


def test_rows_that_are_done_leave_the_batch(llama: Policy) -> None:
    rows: list[int] = []
    handle = llama.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    stops = dataclasses.replace(llama)
    stops.chat.stop_ids, kept = frozenset(range(0, 300, 7)), stops.chat.stop_ids
    try:
        answers = sample(stops, [prompts_of(llama)[0]] * 20, Settings(max_new_tokens=40), range(20))
    finally:
        handle.remove()
        stops.chat.stop_ids = kept
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert rows[1:] == sorted(rows[1:], reverse=True)
    assert sum(rows[1:]) == sum(len(answer.ids) - 1 for answer in answers)


def test_seeds_give_different_texts_and_repeat(llama: Policy) -> None:
    prompt = prompts_of(llama)[0]
    first = sample(llama, [prompt] * 8, Settings(max_new_tokens=12), range(8))
    again = sample(llama, [prompt] * 8, Settings(max_new_tokens=12), range(8))
    longer = sample(llama, [prompt] * 8, Settings(max_new_tokens=20), range(8))
    assert first == again
    assert len({row.ids for row in first}) == 8
    assert all(long.ids[: len(short.ids)] == short.ids for short, long in zip(first, longer, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_frequencies_follow_the_softmax(llama: Policy, temperature: float) -> None:
    prompt, draws = prompts_of(llama)[0], 20_000
    with torch.no_grad():
        logits = llama.model(torch.tensor([prompt])).logits[0, -1]
    expected = (logits / temperature).softmax(0) * draws
    answers = sample(
        llama, [prompt] * draws, Settings(temperature=temperature, max_new_tokens=1), range(draws)
    )
    counts = torch.bincount(torch.tensor([row.ids[0] for row in answers]), minlength=len(logits)).float()
    common = expected >= 5
    statistic = ((counts - expected) ** 2 / expected)[common].sum()
    statistic += (counts[~common].sum() - expected[~common].sum()) ** 2 / expected[~common].sum().clamp(
        min=1e-9
    )
    freedom = int(common.sum())
    assert freedom > 10
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)  # 4 standard deviations of chi-square


def test_top_k_and_top_p_keep_the_likeliest(llama: Policy) -> None:
    prompt = prompts_of(llama)[0]
    with torch.no_grad():
        order = llama.model(torch.tensor([prompt])).logits[0, -1].softmax(0).sort(descending=True)
    seeds = range(400)
    for settings, allowed in (
        (Settings(top_k=3, max_new_tokens=1), 3),
        (Settings(top_p=0.5, max_new_tokens=1), int((order.values.cumsum(0) < 0.5).sum()) + 1),
        (Settings(top_p=1e-9, max_new_tokens=1), 1),
    ):
        drawn = {row.ids[0] for row in sample(llama, [prompt] * len(seeds), settings, seeds)}
        assert drawn == set(order.indices[:allowed].tolist())


def test_bug_13_log_probabilities_are_those_that_training_computes(policy: Policy) -> None:
    """Bug 13: an unchanged policy, T = .6 and top_p = .9: the ratio is 1 for every token."""
    settings = Settings(temperature=0.6, top_p=0.9, repetition_penalty=1.2, max_new_tokens=30)
    prompts = prompts_of(policy)
    answers = sample(policy, prompts, settings, range(len(prompts)))
    rows = [(prompt, answer.ids) for prompt, answer in zip(prompts, answers, strict=True)]
    for values, answer in zip(completion_logprobs(policy.model, rows, temperature=0.6), answers, strict=True):
        ratio = (values - torch.tensor(answer.logprobs)).exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-4)


def test_a_prompt_without_room_is_refused_with_the_numbers(llama: Policy) -> None:
    with pytest.raises(ContextLengthError, match="at most 255 tokens") as caught:
        sample(llama, [[1] * 256], Settings(), [0])
    assert "256 tokens" in caught.value.found
    assert "1 tokens" in caught.value.next_step


def test_the_contexts_end_is_a_length(llama: Policy) -> None:
    answer = sample(llama, [[1] * 250], Settings(temperature=0, max_new_tokens=50), [0])[0]
    assert answer.finish_reason == "length"
    assert len(answer.ids) == 6


def test_a_stop_text_ends_the_answer_before_it(llama: Policy) -> None:
    prompt = prompts_of(llama)[0]
    whole = sample(llama, [prompt], Settings(max_new_tokens=60), [3])[0]
    stop = whole.text[10:13]
    cut = sample(llama, [prompt], Settings(max_new_tokens=60, stop=("never there", stop)), [3])[0]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.ids == whole.ids[: len(cut.ids)]
    assert len(cut.logprobs) == len(cut.ids) < len(whole.ids)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("seed", range(4))
def test_a_stream_is_the_sample_in_whole_characters(
    kind: str, seed: int, policies: dict[str, Policy]
) -> None:
    policy = policies[kind]
    prompt = prompts_of(policy)[1]
    whole = sample(policy, [prompt], Settings(max_new_tokens=60), [seed])[0]
    *pieces, last = stream(policy, prompt, Settings(max_new_tokens=60), seed)
    assert last == whole
    assert "".join(map(str, pieces)) == whole.text
    assert len(pieces) > 5
    stop = whole.text[12:14]
    *pieces, last = stream(policy, prompt, Settings(max_new_tokens=60, stop=(stop,)), seed)
    assert isinstance(last, Sample)
    assert "".join(map(str, pieces)) == last.text == whole.text[: whole.text.index(stop)]


def test_finished_rows_are_told_as_they_come(llama: Policy) -> None:
    told: dict[int, Sample] = {}
    answers = sample(
        llama, prompts_of(llama), Settings(max_new_tokens=5), range(5), on_finish=told.__setitem__
    )
    assert [told[index] for index in range(5)] == answers


def test_no_rows_no_samples(llama: Policy) -> None:
    assert sample(llama, [], Settings(), []) == []


def test_the_models_mode_is_left_as_it_was(llama: Policy) -> None:
    llama.model.train()
    llama.model.lm_head.eval()
    try:
        first = next(stream(llama, prompts_of(llama)[0], Settings(max_new_tokens=4), 0))
        assert first is not None
        assert llama.model.training
        assert not llama.model.lm_head.training
        assert torch.is_grad_enabled()
    finally:
        llama.model.eval()


def test_scores_that_are_not_numbers_are_an_error(llama: Policy) -> None:
    weight = llama.model.model.norm.weight
    kept = weight.detach().clone()
    weight.data.fill_(math.nan)
    try:
        with pytest.raises(NonFiniteError, match="not finite"):
            sample(llama, [prompts_of(llama)[0]], Settings(), [0])
    finally:
        weight.data.copy_(kept)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1}, {"temperature": math.nan}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1},
        {"repetition_penalty": 0}, {"max_new_tokens": 0}, {"stop": ("",)},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Settings(**wrong)


def test_prompts_and_seeds_go_together(llama: Policy) -> None:
    with pytest.raises(UsageError, match="needs a seed"):
        sample(llama, [[1], [2]], Settings(), [0])
    with pytest.raises(UsageError, match="empty prompt"):
        sample(llama, [[]], Settings(), [0])
