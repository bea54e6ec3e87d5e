"""The reward phase: it learns to score, and what it saves scores the same wherever it is loaded (bug 9)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, MambaConfig, MambaForCausalLM

from bases_on_the_spot import ARCHITECTURES, make_base, spec_of
from dlm.bases import POCKET, resolve_base
from dlm.errors import BaseModelError, ContextLengthError, UsageError
from dlm.model import Policy, load_policy, load_reward_model, quiet_libraries
from dlm.model.reward import choose_pad_id
from dlm.recipe import Recipe, RewardRecipe
from dlm.training import (
    Prepared,
    Scalar,
    add_reward_head,
    prepare_reward,
    save_reward_model,
    score_held_out,
)
from dlm.training.adapters import lora_config, refuse_bad_targets
from dlm.training.layout import LAYOUT_NAMES, Layout
from phase_runs import PAIRS, make_version, run, stir, trainable

pytestmark = pytest.mark.torch

ANSWERS = [
    ("Why?", "So."),
    ("What is the question of the day?", "The answer is here, and there is another; the question is what it says."),
    ("How should release notes read?", "They should be short."),
    ("Why?", "Ġquestion <|endoftext|></s><|end|> naïve"),  # spelt as padding and end tokens are
]  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A base, and a reward model on it that no training has touched: a stirred head and adapter, alpha ≠ r."""

    base: Path
    folder: Path
    policy: Policy
    model: Any

    def direct(self, layout: str = "plain") -> list[float]:
        """Scores of ANSWERS by the path that trains: layout, then head."""
        chat = self.policy.chat
        trees = [_Tree(tuple(chat.prompt_ids(q)), (tuple(chat.completion_ids(a)),)) for q, a in ANSWERS]
        laid_out = Layout(layout, self.policy.tokenizer.pad_token_id, "cpu", headless=True)
        with torch.no_grad():
            states = laid_out.last_states(self.model.eval(), trees)
            scores: list[float] = self.model.get_base_model().score(states).squeeze(1).tolist()
        return scores


@dataclass(frozen=True)
class _Tree:
    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]


def make(root: Path, kind: str) -> Made:
    base = make_base(root / kind, kind)
    policy = load_policy(spec_of(base), device="cpu", system_prompt="Be brief.")
    model = stir(add_reward_head(policy, Recipe(lora_r=4, lora_alpha=11)))
    save_reward_model(model, policy, root / f"{kind}-v0001")
    (root / f"{kind}-v0001" / "version.json").write_text(
        json.dumps({"base": f"./{kind}", "base_fingerprint": policy.fingerprint})
    )
    return Made(base, root / f"{kind}-v0001", policy, model)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    root = tmp_path_factory.mktemp("reward")
    return {kind: make(root, kind) for kind in ARCHITECTURES}


# --- training ----------------------------------------------------------------------------------------------------


def prepared_on(base: Path, pairs: Any = PAIRS, **options: Any) -> tuple[Prepared, Any, Recipe]:
    recipe = Recipe(max_steps=6, learning_rate=1e-2, eval_every_steps=6, val_fraction=0.3, lora_dropout=0.0)
    policy = load_policy(spec_of(base), device="cpu")
    model = add_reward_head(policy, recipe)
    knobs = RewardRecipe(**{name: options.pop(name) for name in list(options) if name != "scalars"})
    return prepare_reward(pairs, policy, model, recipe, knobs, **options), model, recipe


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_it_learns_to_score(made: dict[str, Made], tmp_path: Path, kind: str) -> None:
    prepared, model, recipe = prepared_on(made[kind].base)
    history = run(prepared, model, recipe, tmp_path).history
    assert history[6]["train_loss"] < history[1]["train_loss"]
    assert history[6]["val_pref_acc"] == 1
    assert history[6]["valid_rewards/margins"] > 0
    final = score_held_out(prepared, model)
    assert final["full_valid_pairs"] == len(prepared.validation) > 3
    assert (prepared.monitors, prepared.probes) == ([], [])
    assert prepared.selection is not None


def test_the_head_follows_from_the_seed_and_is_fp32(made: dict[str, Made]) -> None:
    heads = []
    for seed, precision in ((7, "fp32"), (7, "bf16"), (8, "fp32")):
        policy = load_policy(spec_of(made["llama"].base), device="cpu", precision=precision)
        model = add_reward_head(policy, Recipe(seed=seed))
        open_ones = trainable(model)
        assert {tensor.dtype for tensor in open_ones.values()} == {torch.float32}
        assert all("lora_" in name or "score" in name for name in open_ones)
        heads.append(next(tensor for name, tensor in open_ones.items() if "score" in name))
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_scored_answers_become_pairs(made: dict[str, Made]) -> None:
    scalars = [
        Scalar("Which?", answer, score, "scores.jsonl", line)
        for line, (answer, score) in enumerate((("Good.", 0.9), ("Fair.", 0.6), ("Poor.", 0.1)), 1)
    ]
    prepared, _, _ = prepared_on(made["llama"].base, PAIRS, scalars=scalars, min_margin=0.4)
    sides = {
        (one.pair.chosen, one.pair.rejected)  # type: ignore[union-attr]
        for one in (*prepared.train, *prepared.validation)
        if one.row.origin == "scores.jsonl"
    }
    assert sides == {("Good.", "Poor."), ("Fair.", "Poor.")}
    assert prepared.preflight.origins == {"doc.dlm": 24, "scores.jsonl": 2}
    assert prepared.preflight.notes == [
        "3 scored answers to 1 prompt make 2 pairs; left out: 1 pair whose scores differ too little"
    ]


def test_mined_pairs_can_be_left_out(made: dict[str, Made]) -> None:
    pairs = [*PAIRS, replace(PAIRS[0], prompt="Other?", mined=True)]
    prepared, _, _ = prepared_on(made["llama"].base, pairs, include_mined=False)
    assert prepared.preflight.left_out == {"mined": 1}
    with pytest.raises(UsageError, match="left out as asked for"):
        prepared_on(made["llama"].base, pairs[-1:], include_mined=False)


@pytest.mark.parametrize("name", LAYOUT_NAMES)
def test_every_layout_scores_alike(made: dict[str, Made], name: str) -> None:
    assert made["llama"].direct(name) == pytest.approx(made["llama"].direct(), abs=1e-5)


def test_target_modules_that_are_not_there_are_refused(made: dict[str, Made]) -> None:
    policy = load_policy(spec_of(made["llama"].base), device="cpu")
    with pytest.raises(UsageError, match="target_modules do not fit") as fault:
        add_reward_head(policy, Recipe(target_modules=["nonesuch"]))
    assert "q_proj" in fault.value.expected
    assert "score" not in fault.value.expected  # it is trained anyway


def test_layers_that_take_no_adapter_are_not_advised() -> None:
    """PEFT refuses Mamba's `out_proj`, and with it `auto`."""
    model = MambaForCausalLM(MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, state_size=2))
    with pytest.raises(UsageError, match="target_modules do not fit") as fault, refuse_bad_targets(model):
        get_peft_model(model, lora_config(model, Recipe(), task_type="CAUSAL_LM"))
    assert fault.value.expected == "some of dt_proj, in_proj, x_proj"
    assert fault.value.next_step == "--set target_modules=[dt_proj,in_proj,x_proj]"


# --- saved and loaded --------------------------------------------------------------------------------------------


def stock_scores(folder: Path, model: Any, rows: list[list[int]], pad_id: int) -> list[float]:
    """transformers' own forward over one padded batch: it finds the last token by itself."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        scores: list[float] = model.eval()(input_ids=ids, attention_mask=mask).logits.squeeze(1).tolist()
    return scores


def rows_of(made: Made) -> list[list[int]]:
    chat = made.policy.chat
    return [[*chat.prompt_ids(q), *chat.completion_ids(a)] for q, a in ANSWERS]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_bug_9_a_version_and_its_merged_export_score_as_it_was_trained(
    made: dict[str, Made], tmp_path: Path, kind: str
) -> None:
    """Adapter, merged model and stock transformers, after save and load, alpha ≠ r; answers of different lengths."""
    one = made[kind]
    expected = one.direct()
    assert max(expected) - min(expected) > 0.01
    loaded = load_reward_model(one.folder, spec_of(one.base), device="cpu")
    assert loaded.chat.system_prompt == "Be brief."
    assert loaded.scores(ANSWERS) == pytest.approx(expected, abs=1e-5)
    loaded.save_merged(tmp_path / "merged")
    merged = load_reward_model(tmp_path / "merged", device="cpu")
    assert merged.chat.system_prompt == "Be brief."
    assert merged.scores(ANSWERS) == pytest.approx(expected, abs=1e-4)
    with quiet_libraries():
        stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.pad_token_id == stock.config.pad_token_id == merged.pad_id
    found = stock_scores(tmp_path, stock, rows_of(one), tokenizer.pad_token_id)
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_padding_never_looks_like_the_end_of_an_answer(made: dict[str, Made], kind: str) -> None:
    """transformers reads the score at the last token that is not padding; two of these bases pad with their end token,
    and one of those has no other special token."""
    policy = made[kind].policy
    end, pad = policy.chat.end_id, choose_pad_id(policy)
    assert (policy.tokenizer.pad_token_id == end) == (kind in ("gpt_neox", "gpt2"))
    assert pad != end
    assert made[kind].model.get_base_model().config.pad_token_id == pad
    if kind != "gpt2":
        assert pad in policy.tokenizer.all_special_ids


def test_stock_peft_loads_the_adapter_where_the_base_is_known(made: dict[str, Made]) -> None:
    one = made["llama"]
    with quiet_libraries():
        stock = AutoPeftModelForSequenceClassification.from_pretrained(str(one.folder), num_labels=1)
    pad = stock.config.pad_token_id
    assert stock_scores(one.folder, stock, rows_of(one), pad) == pytest.approx(one.direct(), abs=1e-5)


def test_what_is_loaded_is_checked(made: dict[str, Made], tmp_path: Path) -> None:
    one = made["llama"]
    with pytest.raises(BaseModelError, match="no place"):  # a base beside some document
        load_reward_model(one.folder, device="cpu")
    with pytest.raises(BaseModelError, match="another base"):
        load_reward_model(one.folder, spec_of(made["qwen2"].base), device="cpu")
    with pytest.raises(BaseModelError, match="writes answers"):
        load_reward_model(make_version(one.base, tmp_path / "v0001"), spec_of(one.base), device="cpu")
    with pytest.raises(BaseModelError, match="it scores answers and writes none"):
        load_policy(spec_of(one.base), one.folder, device="cpu")
    with pytest.raises(BaseModelError, match="holds no reward model"):
        load_reward_model(one.base, device="cpu")
    with pytest.raises(BaseModelError, match="is missing"):
        load_reward_model(tmp_path / "nowhere", device="cpu")


def test_two_labels_are_no_reward_model(made: dict[str, Made], tmp_path: Path) -> None:
    load_reward_model(made["llama"].folder, spec_of(made["llama"].base), device="cpu").save_merged(
        tmp_path / "m"
    )
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["id2label"] = {"0": "no", "1": "yes"}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError, match="holds no reward model") as fault:
        load_reward_model(tmp_path / "m", device="cpu")
    assert "2 labels" in fault.value.found


def test_an_answer_that_is_too_long_is_named(made: dict[str, Made]) -> None:
    loaded = load_reward_model(made["llama"].folder, spec_of(made["llama"].base), device="cpu")
    with pytest.raises(ContextLengthError) as fault:
        loaded.scores([*ANSWERS, ("A long one?", "yes, it is. " * 99)])
    assert "'A long one?'" in fault.value.found


def test_scores_do_not_depend_on_company(made: dict[str, Made]) -> None:
    loaded = load_reward_model(made["gpt_neox"].folder, spec_of(made["gpt_neox"].base), device="cpu")
    alone = [loaded.scores([answer])[0] for answer in ANSWERS]
    assert loaded.scores(ANSWERS * 3) == pytest.approx(alone * 3, abs=1e-5)
    assert loaded.scores([]) == []


@pytest.mark.big
def test_the_embedded_base_makes_a_reward_model_that_finds_it_again(tmp_path: Path) -> None:
    """A version names the base, not where it lies on this machine."""
    policy = load_policy(resolve_base(POCKET), device="cpu")
    model = stir(add_reward_head(policy, Recipe(lora_r=4, lora_alpha=11)))
    save_reward_model(model, policy, tmp_path / "v0001")
    (tmp_path / "v0001" / "version.json").write_text(
        json.dumps({"base": POCKET, "base_fingerprint": policy.fingerprint})
    )
    config = json.loads((tmp_path / "v0001" / "adapter_config.json").read_text())
    (tmp_path / "v0001" / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "/nowhere"})
    )
    loaded = load_reward_model(tmp_path / "v0001", device="cpu")
    expected = Made(policy.folder, tmp_path, policy, model).direct()
    assert loaded.scores(ANSWERS) == pytest.approx(expected, abs=1e-4)
