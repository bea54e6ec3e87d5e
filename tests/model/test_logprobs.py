"""Log-probabilities of completions against the plain softmax of the model's own logits."""

from __future__ import annotations

import pytest
import torch

from dlm.errors import UsageError
from dlm.model import Policy, completion_logprobs
from dlm.model import head as head_module

pytestmark = pytest.mark.torch


def rows_of(policy: Policy) -> list[tuple[list[int], list[int]]]:
    turns = [
        ("Hi", "The answer is here."),
        ("What is the question of the day?", "x"),
        ("Why?", "é" * 30),
        ("a", ""),
    ]
    return [
        (policy.chat.prompt_ids(question), policy.chat.completion_ids(answer)) for question, answer in turns
    ]


def plainly(policy: Policy, prompt: list[int], completion: list[int], temperature: float) -> torch.Tensor:
    with torch.no_grad():
        logits = policy.model(torch.tensor([prompt + completion])).logits[0]
    scores = (logits.double() / temperature).log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return torch.tensor(
        [scores[place, token] for place, token in zip(places, completion, strict=True)]
    ).float()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_they_are_the_softmax_of_the_models_logits(policy: Policy, temperature: float) -> None:
    got = completion_logprobs(policy.model, rows_of(policy), temperature)
    for values, (prompt, completion) in zip(got, rows_of(policy), strict=True):
        assert values.dtype == torch.float32
        torch.testing.assert_close(
            values, plainly(policy, prompt, completion, temperature), rtol=0, atol=2e-5
        )


def test_batches_and_tiles_change_nothing(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = completion_logprobs(policy.model, rows_of(policy))
    monkeypatch.setattr(head_module, "_TILE_ENTRIES", 700)
    parts = completion_logprobs(policy.model, rows_of(policy), batch_tokens=64)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_only_scored_positions_reach_the_head(llama: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = head_module.linear
    monkeypatch.setattr(
        head_module, "linear", lambda rows, *rest: seen.append(len(rows)) or real(rows, *rest)
    )
    completion_logprobs(llama.model, rows_of(llama))
    assert sum(seen) == sum(len(completion) for _, completion in rows_of(llama))


def test_empty_completions_and_no_rows(llama: Policy) -> None:
    assert completion_logprobs(llama.model, []) == []
    assert [len(values) for values in completion_logprobs(llama.model, [([1], []), ([1, 2], [3])])] == [0, 1]
    assert [len(values) for values in completion_logprobs(llama.model, [([1], [])])] == [0]


def test_the_models_mode_is_left_as_it_was(llama: Policy) -> None:
    llama.model.train()
    try:
        completion_logprobs(llama.model, rows_of(llama))
        assert all(module.training for module in llama.model.modules())
    finally:
        llama.model.eval()


def test_misuse_is_refused(llama: Policy) -> None:
    with pytest.raises(UsageError, match="prompt"):
        completion_logprobs(llama.model, [([], [1])])
    with pytest.raises(UsageError, match="temperature"):
        completion_logprobs(llama.model, [([1], [1])], 0.0)
