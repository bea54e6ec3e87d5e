"""Four layouts, one set of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bases_on_the_spot import make_base, spec_of
from dlm.model import Settings, load_policy, sample
from dlm.training.layout import LAYOUT_NAMES, Layout, arrange
from small_models import ARCHITECTURES, VOCABULARY, Grown, adapted, config_of, gradients, grown, relative

pytestmark = pytest.mark.torch
OTHERS = LAYOUT_NAMES[1:]


tokens = st.integers(0, VOCABULARY - 1)
answers = st.lists(tokens, min_size=1, max_size=7).map(tuple)
trees = st.builds(
    Grown,
    st.lists(tokens, min_size=1, max_size=9).map(tuple),
    st.lists(answers, min_size=1, max_size=4).map(tuple),
)


BATCHES = {
    "rows": [grown(1, 5, 7), grown(2, 1, 1), grown(3, 12, 3)],
    "pairs": [grown(4, 6, 4, 9), grown(5, 1, 1, 2), grown(6, 11, 8, 1)],
    "groups": [grown(7, 4, 3, 5, 1, 2), grown(8, 9, 6, 6)],
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Any:
    return adapted(config_of(request.param))


def loss_and_gradients(model: Any, name: str, batch: list[Grown]) -> tuple[torch.Tensor, torch.Tensor]:
    scores = Layout.of(name, model, None, "cpu").scores(model, batch)
    weights = torch.linspace(0.5, 2.0, len(scores.logprobs))  # a loss that tells every token apart
    loss = (weights * scores.logprobs).sum()
    loss.backward()
    return loss.detach(), gradients(model)


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", OTHERS)
def test_every_layout_gives_the_plain_ones_loss_and_gradients(model: Any, name: str, kind: str) -> None:
    expected, expected_gradients = loss_and_gradients(model, "plain", BATCHES[kind])
    found, found_gradients = loss_and_gradients(model, name, BATCHES[kind])
    assert float((found - expected).abs() / expected.abs()) <= 1e-5
    assert relative(found_gradients, expected_gradients) <= 1e-5


def test_the_plain_layout_gives_the_models_own_log_probs(model: Any) -> None:
    pair = BATCHES["pairs"][0]
    found = Layout.of("plain", model, None, "cpu").scores(model, [pair])
    expected = []
    for branch in pair.branches:
        with torch.no_grad():
            logits = model(torch.tensor([pair.prompt + branch])).logits[0]
        logp = logits.double().log_softmax(-1)
        places = range(len(pair.prompt) - 1, len(pair.prompt) + len(branch) - 1)
        expected += [float(logp[place, token]) for place, token in zip(places, branch, strict=True)]
    torch.testing.assert_close(found.logprobs.detach(), torch.tensor(expected), rtol=0, atol=2e-5)
    ends = torch.tensor(expected).split([len(branch) for branch in pair.branches])
    torch.testing.assert_close(
        found.sums().detach(), torch.stack([part.sum() for part in ends]), rtol=0, atol=5e-5
    )


@pytest.mark.parametrize("name", LAYOUT_NAMES)
def test_bug_11_a_row_does_not_feel_its_neighbour(model: Any, name: str) -> None:
    """Bit for bit: another row, or another answer to the same prompt, changes nothing."""
    first, second = grown(4, 6, 4, 9), grown(5, 8, 3, 2)
    layout = Layout.of(name, model, None, "cpu")
    spans = [slice(0, 4), slice(4, 13), slice(13, 16), slice(16, 18)]  # the scored tokens of each answer
    before = layout.scores(model, [first, second]).logprobs
    changes: list[
        tuple[list[Grown], set[int]]
    ] = [  # a batch, and the answers that may feel what is new in it
        ([first, Grown(other(second.prompt), second.branches)], {2, 3}),
        ([Grown(other(first.prompt), first.branches), second], {0, 1}),
        ([Grown(first.prompt, (other(first.branches[0]), first.branches[1])), second], {0}),
        ([Grown(first.prompt, (first.branches[0], other(first.branches[1]))), second], {1}),
    ]
    for batch, feel in changes:
        after = layout.scores(model, batch).logprobs
        unlike = {number for number, span in enumerate(spans) if not torch.equal(before[span], after[span])}
        assert unlike == feel


def other(ids: tuple[int, ...]) -> tuple[int, ...]:
    """As many tokens, every one another."""
    return tuple((token + 1) % VOCABULARY for token in ids)


@pytest.mark.parametrize("name", LAYOUT_NAMES)
def test_bug_11_a_row_alone_is_the_row_in_company(model: Any, name: str) -> None:
    layout = Layout.of(name, model, None, "cpu")
    together = layout.scores(model, BATCHES["pairs"])
    alone = [layout.scores(model, [one]).logprobs for one in BATCHES["pairs"]]
    torch.testing.assert_close(together.logprobs, torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", LAYOUT_NAMES)
def test_bug_13_what_was_sampled_is_scored_as_it_was_sampled(name: str, tmp_path: Path) -> None:
    """Groups of answers at T = .6 and top_p = .9, scored as training scores them: an unchanged policy has a ratio of 1
    for every token. Both sides mean logits / T over the whole vocabulary."""
    policy = load_policy(spec_of(make_base(tmp_path / "llama", "llama")), device="cpu")
    prompts = [tuple(policy.chat.prompt_ids(question)) for question in ("Hi", "What is the question?")]
    settings = Settings(temperature=0.6, top_p=0.9, max_new_tokens=12)
    answers = sample(policy, [prompt for prompt in prompts for _ in range(3)], settings, range(6))
    groups = [Grown(prompts[at], tuple(one.ids for one in answers[3 * at : 3 * at + 3])) for at in (0, 1)]
    layout = Layout.of(name, policy.model, policy.tokenizer.pad_token_id, "cpu")
    with torch.no_grad():
        scored = layout.scores(policy.model, groups, temperature=0.6).logprobs
        untempered = layout.scores(policy.model, groups).logprobs
    sampled = torch.tensor([logprob for one in answers for logprob in one.logprobs])
    torch.testing.assert_close((scored - sampled).exp(), torch.ones_like(sampled), rtol=0, atol=1e-4)
    assert (untempered - sampled).abs().max() > 0.1


@pytest.mark.parametrize("name", OTHERS)
def test_the_last_states_are_those_of_the_plain_layout(model: Any, name: str) -> None:
    expected = Layout.of("plain", model, None, "cpu").last_states(model, BATCHES["groups"])
    found = Layout.of(name, model, None, "cpu").last_states(model, BATCHES["groups"])
    assert expected.shape == (6, 16)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_a_tree_laid_out_by_hand() -> None:
    batch = arrange([Grown((7, 8), ((1, 2, 3), (4, 5)))], "packed_shared", 0)
    assert batch.input_ids.tolist() == [[7, 8, 1, 2, 4]]  # no answer's last token predicts anything
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2]]  # positions go on from the prompt for both
    assert batch.places.tolist() == [1, 2, 3, 1, 4]
    assert batch.targets.tolist() == [1, 2, 3, 4, 5]
    assert batch.owner.tolist() == [0, 0, 0, 1, 1]
    assert batch.blocks is not None
    prompt, first, second = batch.blocks[0].pieces
    assert [(p.queries, p.seen) for p in (prompt, first, second)] == [
        (slice(0, 2), slice(0, 0)),
        (slice(2, 4), slice(0, 2)),
        (slice(4, 5), slice(0, 2)),
    ]
    assert (prompt.bias == 0).long().tolist() == [[1, 0], [1, 1]]
    assert (first.bias == 0).long().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert (second.bias == 0).long().tolist() == [[1, 1, 1]]
    whole = arrange([Grown((7, 8), ((1, 2, 3), (4, 5)))], "shared", 0, whole=True)
    assert whole.input_ids.tolist() == [[7, 8, 1, 2, 3, 4, 5]]
    assert whole.ends.tolist() == [4, 6]


@given(st.lists(trees, min_size=1, max_size=5), st.sampled_from(LAYOUT_NAMES))
def test_what_a_layout_costs_is_known_before_it_is_laid_out(batch: list[Grown], name: str) -> None:
    layout = Layout(name, 0, "cpu", True)
    laid_out = arrange(batch, name, 0)
    assert layout.positions(batch) == laid_out.n_positions
    wanted = [token for one in batch for branch in one.branches for token in branch]
    assert laid_out.targets.tolist() == wanted
    # what predicts a token is the token before it: the same answer's, or the prompt's last
    before = laid_out.input_ids.flatten()[laid_out.places].tolist()
    assert before == [
        token for one in batch for branch in one.branches for token in (one.prompt[-1], *branch[:-1])
    ]
    order = laid_out.position_ids.flatten()[laid_out.places].tolist()
    assert order == [
        len(one.prompt) - 1 + i for one in batch for branch in one.branches for i in range(len(branch))
    ]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_temperature_and_entropy_are_those_of_the_softmax(temperature: float) -> None:
    model = adapted(config_of("llama"))
    row = grown(1, 5, 6)
    scores = Layout.of("packed", model, None, "cpu").scores(
        model, [row], temperature=temperature, entropy=True
    )
    with torch.no_grad():
        logits = model(torch.tensor([row.prompt + row.branches[0]])).logits[0, 4:10].double() / temperature
    logp = logits.log_softmax(-1)
    picked = logp.gather(1, torch.tensor(row.branches[0])[:, None]).squeeze(1)
    torch.testing.assert_close(scores.logprobs.detach().double(), picked, rtol=0, atol=2e-5)
    assert scores.entropy is not None
    torch.testing.assert_close(scores.entropy.double(), -(logp.exp() * logp).sum(-1), rtol=0, atol=2e-5)
    assert scores.correct.tolist() == (logp.argmax(-1) == torch.tensor(row.branches[0])).tolist()
