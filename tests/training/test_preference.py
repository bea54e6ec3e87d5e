"""The preference phase: what it starts from, what it reads, what it watches, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    OPTConfig,
    PretrainedConfig,
    Starcoder2Config,
)

from bases_on_the_spot import make_base, spec_of
from dlm.errors import TrainingError, UsageError
from dlm.model import load_policy
from dlm.recipe import Choice, PreferenceRecipe, Recipe
from dlm.training import (
    Pair,
    Prepared,
    Row,
    Stored,
    prepare_preference,
    score_held_out,
    start_adapter,
)
from dlm.training.adapters import without_dropout
from dlm.training.checkpoints import save_adapter
from dlm.training.loop import Plan
from phase_runs import PAIRS, ROWS, chat, make_version, pair, run, started, stir, trainable

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("preference") / "llama", "llama")


@pytest.fixture(scope="module")
def version(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_version(base, tmp_path_factory.mktemp("versions") / "v0001")


def prepare(
    base: Path,
    folder: Path,
    pairs: list[Pair],
    *,
    rows: list[Row] | None = None,
    version: Path | None = None,
    stored: Stored | None = None,
    knobs: dict[str, Any] | None = None,
    **choices: Any,
) -> tuple[Prepared, Any, Recipe]:
    recipe = Recipe(**{"layout": "plain", "lora_dropout": 0.0, **(knobs or {})})
    policy, model = started(base, recipe, version)
    preference = PreferenceRecipe(**choices)
    prepared = prepare_preference(
        pairs, ROWS if rows is None else rows, policy, model, recipe, preference, folder / "cache", stored
    )
    return prepared, model, recipe


# --- what it starts from -----------------------------------------------------------------------------------------


def test_it_goes_on_from_the_versions_own_weights(base: Path, version: Path, tmp_path: Path) -> None:
    policy, model = started(base, Recipe(lora_r=2), version)
    assert policy.adapter == version
    given = trainable(load_policy(spec_of(base), version, device="cpu", trainable=True).model)
    assert trainable(model).keys() == given.keys()
    assert all(torch.equal(value, given[name]) for name, value in trainable(model).items())
    assert model.peft_config["default"].r == 4  # a version keeps its shape
    save_adapter(model, tmp_path / "v0002")
    again = load_policy(spec_of(base), tmp_path / "v0002", device="cpu")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(again.model(ids).logits, model.eval()(ids).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_nothing_is_dropped(kind: str, tmp_path: Path) -> None:
    """Neither by the adapter, fresh or a version's, nor by the base (GPT-2 drops .1 in its own layers)."""
    folder = make_base(tmp_path / kind, kind)
    saved = make_version(folder, tmp_path / "v0001", lora_dropout=0.5)
    ids = torch.tensor([[5, 6, 7, 8]])
    for start in (None, saved):
        _, model = started(folder, Recipe(lora_dropout=0.5), start)
        stir(model).train()
        assert torch.equal(model(ids).logits, model(ids).logits)
        assert model.peft_config["default"].lora_dropout == 0


@pytest.mark.parametrize(
    "config",
    [
        OPTConfig(ffn_dim=24, word_embed_proj_dim=16, dropout=0.5, attention_dropout=0.5, layerdrop=0.5),
        FalconConfig(hidden_dropout=0.5, attention_dropout=0.5),
        Starcoder2Config(
            num_key_value_heads=2, residual_dropout=0.5, embedding_dropout=0.5, attention_dropout=0.5
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_nothing_is_dropped_by_bases_that_keep_a_rate_of_their_own(config: PretrainedConfig) -> None:
    """They have no layer of dropout to switch off: a number on a module or in the configuration says how much."""
    sizes = {"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    config.update({**sizes, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    lora = LoraConfig(target_modules="all-linear", lora_dropout=0.5, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_config(config), lora)
    ids = torch.arange(8)[None]
    noisy = stir(model).train()
    assert not torch.equal(noisy(input_ids=ids).logits, noisy(input_ids=ids).logits)
    quiet = without_dropout(model)
    assert torch.equal(quiet(input_ids=ids).logits, quiet(input_ids=ids).logits)


def test_an_adapter_that_was_loaded_for_use_is_not_trained(base: Path, version: Path) -> None:
    policy = load_policy(spec_of(base), version, device="cpu")
    with pytest.raises(ValueError, match="trainable"):
        start_adapter(policy, Recipe())


@pytest.mark.parametrize("reference", ["pre_adapter", "base"])
def test_without_a_version_both_references_are_the_base(base: Path, tmp_path: Path, reference: str) -> None:
    prepared, _, _ = prepare(base, tmp_path, PAIRS, reference=reference)
    bare, _, _ = prepare(base, tmp_path / "other", PAIRS, reference="base")
    for key, values in bare.objective.reference.items():  # type: ignore[attr-defined]
        assert prepared.objective.reference[key] == pytest.approx(values, rel=1e-6)  # type: ignore[attr-defined]


# --- that it learns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_version", [True, False])
@pytest.mark.parametrize("method", ["dpo", "orpo", "simpo"])
def test_it_learns_to_prefer(
    base: Path, version: Path, tmp_path: Path, method: str, from_version: bool
) -> None:
    """From a version and from the bare base: held-out pairs come to be ranked right, and every metric has its name."""
    knobs = {
        "max_steps": 8,
        "learning_rate": 2e-2,
        "eval_every_steps": 8,
        "val_fraction": 0.3,
        "layout": "auto",
    }
    start = version if from_version else None
    prepared, model, recipe = prepare(base, tmp_path, PAIRS, version=start, knobs=knobs, method=method)
    assert (prepared.preflight.reference is not None) == (method == "dpo")
    history = run(prepared, model, recipe, tmp_path / "run").history
    last, first = history[8], history[1]
    assert last["train_loss"] < first["train_loss"]
    assert last["val_pref_acc"] == 1
    assert last["valid_rewards/margins"] > 0
    for name in (
        "rewards/chosen",
        "rewards/rejected",
        "rewards/accuracies",
        "logps/chosen",
        "logps/rejected",
    ):
        assert name in first, name
    assert 0 <= first["train_mean_token_accuracy"] <= 1  # of the chosen answers' tokens
    assert ("log_odds_ratio" in first) == (method == "orpo")
    assert {"sft_valid_loss", "sft_valid_mean_token_accuracy"} <= last.keys()
    final = score_held_out(prepared, model)
    assert final["full_valid_pref_acc"] == 1
    assert final["full_valid_pairs"] == len(prepared.validation) > 3


def test_the_supervised_term_holds_the_chosen_answers(base: Path, version: Path, tmp_path: Path) -> None:
    """DPO alone lets both answers become less likely; with the term, the chosen ones become likelier."""
    knobs = {"max_steps": 8, "learning_rate": 2e-2, "eval_every_steps": 8}
    rewards = {}
    for weight in (0.0, 1.0):
        folder = tmp_path / str(weight)
        prepared, model, recipe = prepare(
            base, folder, PAIRS, version=version, knobs=knobs, sft_weight=weight
        )
        rewards[weight] = run(prepared, model, recipe, folder / "run").history[8]["valid_rewards/chosen"]
    assert rewards[1.0] > rewards[0.0]
    assert rewards[1.0] > 0


# --- what it reads -----------------------------------------------------------------------------------------------


def test_what_is_left_out_is_counted_by_its_reason(base: Path, tmp_path: Path) -> None:
    pairs = [
        *PAIRS,
        pair(30, 30, mined=True),
        pair(31, 31, mined=True),
        pair(32, 32, chosen_score=0.9, rejected_score=0.8),
        pair(33, 33, chosen_score=0.9, rejected_score=0.2),
        replace(PAIRS[0], line=34),
        Pair("Which?", "This.", "This.", "doc.dlm", 35),
        Pair("Long?", "Yes.", "Yes, it is. " * 40, "pairs.jsonl", 36),
    ]
    prepared, _, _ = prepare(base, tmp_path, pairs, min_margin=0.5, include_mined=False)
    flight = prepared.preflight
    assert flight.left_out == {"mined": 2, "below_margin": 1, "duplicate": 1, "equal": 1, "too_long": 1}
    assert flight.rows["train"] + flight.rows["validation"] == 26
    assert len(prepared.train) + len(prepared.validation) == 25
    assert flight.origins == {"doc.dlm": 25, "pairs.jsonl": 1}
    assert flight.split_reason.endswith("pairs held out by their prompt")
    listed = {finding.places for finding in prepared.findings if finding.share is None}
    assert {("doc.dlm:34",), ("doc.dlm:35",), ("pairs.jsonl:36",)} <= listed
    assert not {("doc.dlm:30",), ("doc.dlm:32",)} & listed  # left out as asked for


def test_tokens_are_counted_by_part_with_the_prompt_once(base: Path, tmp_path: Path) -> None:
    prepared, _, _ = prepare(base, tmp_path, PAIRS)
    tokens = prepared.preflight.tokens
    assert tokens["whole"].total == sum(tokens[part].total for part in ("prompt", "chosen", "rejected"))
    assert tokens["chosen"].max == max(len(one.branches[0]) for one in prepared.train)
    assert tokens["rejected"].min == min(len(one.branches[1]) for one in prepared.train)


def test_a_control_token_in_a_pair_is_named(base: Path, tmp_path: Path) -> None:
    odd = Pair("Say it.", "No.", "<|end|>", "doc.dlm", 77)
    prepared, _, _ = prepare(base, tmp_path, [*PAIRS, odd])
    assert prepared.preflight.special_tokens == [("doc.dlm:77", "<|end|>")]


def test_too_many_pairs_that_do_not_fit_refuse_the_run(base: Path, tmp_path: Path) -> None:
    """Those left out as asked for do not count; those too long do."""
    long = [Pair(f"Long {i}?", "Yes.", "Yes, it is. " * 40, "doc.dlm", 90 + i) for i in range(4)]
    mined = [pair(i, i, mined=True) for i in range(30, 60)]
    with pytest.raises(TrainingError, match="4 of 28 pairs do not fit") as fault:
        prepare(base, tmp_path, [*PAIRS, *long, *mined], include_mined=False)
    assert "doc.dlm:93" in fault.value.message
    prepared, _, _ = prepare(base, tmp_path, [*PAIRS, *long[:2], *mined], include_mined=False)
    assert prepared.preflight.left_out == {"mined": 30, "too_long": 2}


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        ([], UsageError, "there are no pairs"),
        ([pair(1, mined=True)], UsageError, "left out as asked for"),
        ([Pair("Which?", "This.", "This.", "doc.dlm", 5)], TrainingError, "no pair can be trained on"),
        ([Pair("Which?", "This.", "That. " * 99, "doc.dlm", 5)], TrainingError, "no pair can be trained on"),
    ],
)
def test_nothing_to_train_on(
    base: Path, tmp_path: Path, pairs: list[Pair], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepare(base, tmp_path, pairs, include_mined=False)


# --- what it watches ---------------------------------------------------------------------------------------------


def test_supervised_rows_are_watched_and_never_trained_on(base: Path, tmp_path: Path) -> None:
    rows = [
        *ROWS,
        chat("Which?", "This one.", 90, probe=True),
        chat("Long?", "Yes, it is. " * 40, 91, probe=True),
    ]
    prepared, _, _ = prepare(base, tmp_path, PAIRS, rows=rows)
    watched = {one.prefix: one for one in prepared.monitors}
    assert watched.keys() == {"sft_valid", "probe"}
    assert [example.row.line for example in watched["probe"].rows] == [90]
    assert [example.row.line for example in prepared.probes] == [90]
    assert prepared.preflight.rows["probes"] == 1
    assert prepared.preflight.rows["sft_valid"] == len(watched["sft_valid"].rows) > 0
    prompts = {example.row.prompt for example in prepared.train}
    assert prompts <= {one.prompt for one in PAIRS}


def test_what_decides_which_evaluation_is_better(base: Path, tmp_path: Path) -> None:
    prepared, _, _ = prepare(base, tmp_path, PAIRS)
    assert prepared.selection is not None
    assert prepared.selection.criteria == (("val_pref_acc", "max"), ("valid_loss", "min"))
    few, _, _ = prepare(base, tmp_path, PAIRS[:6])
    assert few.validation == ()
    assert few.selection is None


def test_what_a_run_began_with_is_used_again(base: Path, tmp_path: Path) -> None:
    plan = Plan(22, rows_per_step=5, micro_rows=2, total_steps=77, eval_every=9, save_every=4)
    prepared, _, _ = prepare(base, tmp_path, PAIRS, stored=Stored(plan, "shared", "torch"))
    assert prepared.plan == plan
    assert prepared.layout == Choice("shared", "as the run began")
    assert prepared.products == Choice("torch", "as the run began")


def test_the_fingerprint_sees_every_answer(base: Path, tmp_path: Path) -> None:
    whole, _, _ = prepare(base, tmp_path, PAIRS)
    for side in ("prompt", "chosen", "rejected"):
        text = getattr(PAIRS[3], side)
        changed = [*PAIRS[:3], replace(PAIRS[3], **{side: text + "!"}), *PAIRS[4:]]
        other, _, _ = prepare(base, tmp_path, changed)
        assert other.fingerprint != whole.fingerprint
    swapped = [*PAIRS[:3], replace(PAIRS[3], chosen=PAIRS[3].rejected, rejected=PAIRS[3].chosen), *PAIRS[4:]]
    assert prepare(base, tmp_path, swapped)[0].fingerprint != whole.fingerprint
    assert prepare(base, tmp_path, PAIRS)[0].fingerprint == whole.fingerprint
