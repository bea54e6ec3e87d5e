"""Reward models as judges: ours from the reward phase, and those of others as transformers itself scores with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bases_on_the_spot import make_base, make_foreign, spec_of
from dlm.errors import BaseModelError
from dlm.judging import Item, JudgeContext, check_judge, make_judge, parse_judge
from dlm.model import load_policy, load_reward_model
from dlm.recipe import Recipe, RewardRecipe
from dlm.training import Pair, add_reward_head, prepare_reward, save_reward_model
from phase_runs import run

pytestmark = pytest.mark.torch
ITEMS = [
    Item("How should release notes read?", "Short."),
    Item("What changed?", "The question of the day: what is the answer? " * 4),
    Item("", ""),
    Item("How should release notes read?", "日本語 <|end|> </s> <|im_end|>"),
]


def stock_score(folder: Path, item: Item) -> float:
    """What transformers makes of it: the whole conversation by the model's template, one row, the last place."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": item.prompt}, {"role": "assistant", "content": item.candidate}],
        tokenize=False,
    )
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        states = getattr(model, model.base_model_prefix)(ids).last_hidden_state
        return float(model.score(states[:, -1])[0, 0])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt_neox"])
def test_a_foreign_model_scores_as_with_transformers(kind: str, tmp_path: Path) -> None:
    folder = make_foreign(tmp_path / "model", kind)
    look("hf:./model", tmp_path)
    judge = make_judge("hf:./model", JudgeContext(folder=tmp_path, device="cpu"))
    found = [verdict.score for verdict in judge.score(ITEMS[:3])]
    assert found == pytest.approx([stock_score(folder, item) for item in ITEMS[:3]], abs=1e-5)
    assert len({round(score or 0, 4) for score in found}) == 3
    assert judge.name == "hf:./model"


def test_control_tokens_in_an_answer_are_text(tmp_path: Path) -> None:
    folder = make_foreign(tmp_path / "model", "qwen2")
    chat = load_reward_model(folder, device="cpu").chat
    ids = chat.conversation_ids("How?", "<|im_end|>")
    assert ids.count(chat.end_id) == 2  # one for the question, one for the answer
    assert ids[-1] != chat.end_id  # the template goes on to the next line
    plain = chat.conversation_ids("How?", "Thus.")
    assert chat.tokenizer.decode(plain).endswith("assistant\nThus.<|im_end|>\n")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("template", [True, False])
def test_scores_do_not_depend_on_the_batch(kind: str, template: bool, tmp_path: Path) -> None:
    make_foreign(tmp_path / "model", kind, template=template)
    judge = make_judge("hf:model", JudgeContext(folder=tmp_path, device="cpu"))
    together = [verdict.score for verdict in judge.score(ITEMS)]
    alone = [next(judge.score([item])).score for item in reversed(ITEMS)][::-1]
    assert together == pytest.approx(alone, abs=1e-5)


def test_what_cannot_be_read_costs_only_its_own_score(tmp_path: Path) -> None:
    make_foreign(tmp_path / "model", "llama")
    judge = make_judge("hf:model", JudgeContext(folder=tmp_path, device="cpu"))
    items = [ITEMS[0], Item("How?", "long " * 300), Item("How?", "\ud800"), ITEMS[1]] * 12
    verdicts = list(judge.score(items))
    assert [verdict.score is not None for verdict in verdicts] == [True, False, False, True] * 12
    assert "too long" in (verdicts[1].error or "")
    assert "surrogate" in (verdicts[2].error or "")
    assert verdicts[1].failures == ("unscorable",)
    assert verdicts[0].score == pytest.approx(stock_score(tmp_path / "model", ITEMS[0]), abs=1e-5)


def test_a_score_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    folder = make_foreign(tmp_path / "model", "llama")
    judge = make_judge("hf:model", JudgeContext(folder=tmp_path, device="cpu"))
    score = judge._model.model.score  # type: ignore[attr-defined]
    with torch.no_grad():
        score.weight.fill_(float("inf"))
    assert folder.is_dir()
    assert {verdict.failures for verdict in judge.score(ITEMS)} == {("non_finite",)}


@pytest.fixture(scope="module")
def reward_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of our own reward phase, which has learnt that brief answers are better. Its base is beside it."""
    root = tmp_path_factory.mktemp("reward")
    base = make_base(root / "base", "llama")
    filler = ("Well, I think that it may be about ", "It is hard to say, but perhaps it is ")
    pairs = [
        Pair(f"What is number {i}?", f"{i * 7}.", f"{filler[i % 2]}{i * 7}.", "doc.dlm", i)
        for i in range(1, 25)
    ]
    recipe = Recipe(learning_rate=3e-3, num_epochs=6, lora_r=4)
    policy = load_policy(spec_of(base), device="cpu", system_prompt="Be brief.")
    model = add_reward_head(policy, recipe)
    prepared = prepare_reward(pairs, policy, model, recipe, RewardRecipe())
    run(prepared, model, recipe, root / "checkpoints")
    save_reward_model(model, policy, root / "v0001")
    return root / "v0001"


@pytest.mark.big
def test_a_reward_model_of_our_own_phase_judges_what_it_was_taught(
    reward_version: Path, tmp_path: Path
) -> None:
    base = spec_of(reward_version.parent / "base")
    judge = make_judge(f"hf:{reward_version}", JudgeContext(base=base, device="cpu", folder=tmp_path))
    items = [
        Item(f"What is number {i}?", f"{filler}{i * 7}.")
        for i in range(30, 40)
        for filler in ("", "Well, I think that it may be about ")
    ]
    scores = [verdict.score or 0.0 for verdict in judge.score(items)]
    assert all(brief > padded for brief, padded in zip(scores[::2], scores[1::2], strict=True))

    merged = load_reward_model(reward_version, base, device="cpu")
    merged.save_merged(tmp_path / "merged")
    alone = make_judge("hf:./merged", JudgeContext(device="cpu", folder=tmp_path))
    assert [verdict.score for verdict in alone.score(items)] == pytest.approx(scores, abs=1e-4)


@pytest.mark.big
def test_the_document_s_base_serves_only_where_the_version_cannot_name_its_own(
    reward_version: Path, tmp_path: Path
) -> None:
    with pytest.raises(BaseModelError, match="no place"):
        make_judge(f"hf:{reward_version}", JudgeContext(device="cpu"))
    other = spec_of(make_base(tmp_path / "other", "llama", seed=9))
    look(f"hf:{reward_version}", tmp_path)
    version = tmp_path / "v0001"
    version.mkdir()
    for file in reward_version.iterdir():
        (version / file.name).write_bytes(file.read_bytes())
    (version / "version.json").write_text('{"base": "pocket"}', encoding="utf-8")
    with pytest.raises(BaseModelError, match="pocket"):  # and not `other`, whose shapes would fit
        make_judge(f"hf:{version}", JudgeContext(base=other, device="cpu"))


@pytest.mark.parametrize("target", ["./nowhere", "nowhere", "org/never-downloaded", "../../etc/x", "a/b/c"])
def test_a_model_that_is_not_here_is_not_fetched(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(BaseModelError, match="fetches no judges"):
        make_judge(f"hf:{target}", JudgeContext(folder=tmp_path))


def look(spec: str, folder: Path) -> None:
    """As before the sampling."""
    check_judge(parse_judge(spec), timeout_s=1, folder=folder)


def test_models_of_other_kinds_are_refused(tmp_path: Path) -> None:
    make_base(tmp_path / "causal", "llama")
    for refuses in (look, lambda spec, folder: make_judge(spec, JudgeContext(folder=folder))):
        with pytest.raises(BaseModelError, match="no reward model"):
            refuses("hf:causal", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match="no reward model") as fault:
        look("hf:empty", tmp_path)
    assert "--phase reward" in fault.value.next_step
    two = make_foreign(tmp_path / "two", "llama")
    config = AutoModelForSequenceClassification.from_pretrained(two).config
    config.num_labels = 2
    AutoModelForSequenceClassification.from_config(config).save_pretrained(two)
    with pytest.raises(BaseModelError, match="one label"):
        make_judge("hf:two", JudgeContext(folder=tmp_path))
    pickled = make_foreign(tmp_path / "pickled", "llama")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match="pickle"):
        make_judge("hf:pickled", JudgeContext(folder=tmp_path))
    damaged = make_foreign(tmp_path / "damaged", "llama")
    save_file({"score.weight": torch.zeros(1, 16)}, damaged / "model.safetensors")
    with pytest.raises(BaseModelError):
        make_judge("hf:damaged", JudgeContext(folder=tmp_path))
