"""What all phases share, and the supervised one: the pre-flight, the estimate, whole runs; bugs 1 to 5 and 10."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bases_on_the_spot import ARCHITECTURES, make_base, spec_of
from dlm.errors import TrainingError, UsageError
from dlm.evaluation import Question, answer_all
from dlm.model import load_policy
from dlm.recipe import Choice, Recipe
from dlm.training import (
    Prepared,
    Row,
    Stored,
    add_adapter,
    encode_pairs,
    estimate,
    prepare_sft,
    score_held_out,
)
from dlm.training.examples import Example, encode
from dlm.training.loop import Plan
from dlm.training.objectives import Outcome, SftObjective
from phase_runs import PAIRS, ROWS, chat, prepared_for, run, started, stir, trainable

pytestmark = pytest.mark.torch

PHASES = ("sft", "preference", "reward")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("phases") / "llama", "llama")


def prepare(base: Path, rows: Sequence[Row], system_prompt: str | None = None, **knobs: Any) -> Prepared:
    recipe = Recipe(**{"layout": "plain", **knobs})
    policy, model = started(base, recipe, system_prompt=system_prompt)
    return prepare_sft(rows, [], policy, model, recipe)


# --- the pre-flight ----------------------------------------------------------------------------------------------


def test_the_pre_flight_counts_what_there_is(base: Path) -> None:
    rows = [
        *ROWS,
        chat("Which?", "This one.", 90, probe=True),
        Row("prose", None, "Long prose. " * 80, "notes.txt", 91),
        chat("Say <|end|> now.", "No.", 92),
        chat("Too long?", "Yes, it is. " * 80, 93),
    ]
    recipe = Recipe(lora_r=4)
    policy, model = started(base, recipe)
    prepared = prepare_sft(rows, [], policy, model, recipe)
    flight = prepared.preflight
    assert flight.rows["probes"] == 1
    assert flight.rows["train"] + flight.rows["validation"] == 27
    assert flight.origins == {"doc.dlm": 26, "notes.txt": 1}
    lengths = sorted(len(example.prompt) + example.n_targets for example in prepared.train)
    assert (flight.tokens_min, flight.tokens_max, flight.tokens_total) == (
        lengths[0],
        lengths[-1],
        sum(lengths),
    )
    assert flight.tokens_median == lengths[len(lengths) // 2]
    parts = flight.tokens["prompt"].total + flight.tokens["answer"].total
    assert parts == flight.tokens["whole"].total
    assert flight.max_len == Choice(256, "the base's context")
    assert [(one.row.line, "the limit is 256" in one.reason) for one in flight.skipped] == [(93, True)]
    assert flight.left_out == {"too_long": 1}
    assert [finding.places for finding in prepared.findings if finding.kind == "too_long"] == [
        ("doc.dlm:93",)
    ]
    assert flight.split_prose == 1
    assert flight.special_tokens == [("doc.dlm:92", "<|end|>")]
    assert flight.plan == prepared.plan
    assert flight.micro.value == prepared.plan.micro_rows
    assert flight.trainable_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert flight.trainable_parameters < flight.total_parameters == sum(p.numel() for p in model.parameters())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if "lora_" in name
    }


def test_bug_2_rows_without_labels_are_listed_and_too_many_refuse_the_run(base: Path) -> None:
    """No row is cut: one that does not fit is left out with its place and counted, and what is trained on has labels."""
    long = chat("Long?", "Yes, it is. " * 12, 93)
    prepared = prepare(base, [*ROWS, long], sequence_len=64)
    assert prepared.preflight.max_len == Choice(64, "sequence_len")
    assert [one.row.place for one in prepared.preflight.skipped] == ["doc.dlm:93"]
    assert all(len(example.branches[0]) >= 1 for example in prepared.train)
    assert all(len(example.prompt) + example.n_targets <= 64 for example in prepared.train)
    with pytest.raises(TrainingError, match="1 of 5 rows do not fit") as fault:
        prepare(base, [long, *ROWS[:4]], sequence_len=64)
    assert "doc.dlm:93" in fault.value.message
    assert "raise sequence_len" in fault.value.next_step
    with pytest.raises(TrainingError, match="no row fits"):
        prepare(base, [long], sequence_len=64)


def test_probes_that_do_not_fit_refuse_nothing(base: Path) -> None:
    """They are never trained on: they are listed, and the run goes on without them."""
    long = [chat(f"Long {i}?", "Yes, it is. " * 12, 90 + i, probe=True) for i in range(9)]
    prepared = prepare(base, [*ROWS[:5], *long], sequence_len=64)
    assert len(prepared.preflight.skipped) == 9
    assert prepared.probes == ()


def test_nothing_to_train_on(base: Path) -> None:
    with pytest.raises(UsageError, match="nothing to train on"):
        prepare(base, [chat("Which?", "This.", probe=True)])


def test_what_a_run_began_with_is_used_again(base: Path) -> None:
    plan = Plan(24, rows_per_step=5, micro_rows=2, total_steps=77, eval_every=9, save_every=4)
    recipe = Recipe(val_fraction=0.0)
    policy, model = started(base, recipe)
    stored = Stored(plan, "shared", "onednn")
    prepared = prepare_sft(ROWS, [], policy, model, recipe, stored=stored)
    assert prepared.plan == plan
    assert prepared.preflight.micro == Choice(2, "as the run began")
    assert prepared.layout == Choice("shared", "as the run began")
    assert prepared.objective.layout.name == "shared"
    assert prepared.products == Choice("onednn", "as the run began")


def test_the_fingerprint_sees_every_token(base: Path) -> None:
    rows = [*ROWS, chat("Which?", "This one.", 90, probe=True)]
    whole = prepare(base, rows)
    assert prepare(base, rows).fingerprint == whole.fingerprint
    assert prepare(base, [replace(row, line=row.line + 5) for row in rows]).fingerprint == whole.fingerprint
    assert prepare(base, rows, system_prompt="Be brief.").fingerprint != whole.fingerprint
    for part in ("train", "validation", "probes"):
        before: Sequence[Example] = getattr(whole, part)
        assert before, part
        one = before[0]
        changed = replace(one, ids=(*one.ids[:-1], one.ids[-1] + 1))
        shifted = replace(one, first_target=one.first_target + 1)
        for other in (changed, shifted):
            assert replace(whole, **{part: [other, *before[1:]]}).fingerprint != whole.fingerprint
        assert replace(whole, **{part: before[1:]}).fingerprint != whole.fingerprint
    moved = replace(whole, train=[*whole.train, *whole.validation], validation=[])
    assert moved.fingerprint != whole.fingerprint


def test_a_supervised_run_watches_pairs_against_the_base(base: Path, tmp_path: Path) -> None:
    recipe = Recipe(max_steps=1, learning_rate=1e-2, warmup_ratio=0.0, lora_dropout=0.0)
    policy, model = started(base, recipe)
    prepared = prepare_sft(ROWS, PAIRS, policy, model, recipe, reference_folder=tmp_path / "cache")
    assert prepared.preflight.reference is not None
    history = run(prepared, model, recipe, tmp_path / "run").history[1]
    assert history["pairs_rewards/margins"] != 0
    assert 0 <= history["pairs_pref_acc"] <= 1
    assert "val_pref_acc" not in history
    alone = prepare(base, ROWS)
    assert [one.prefix for one in alone.monitors] == ["probe"]


# --- the estimate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
def test_the_estimate_leaves_no_trace(base: Path, tmp_path: Path, phase: str) -> None:
    prepared, _, model = prepared_for(phase, base, Recipe(micro_batch_size=2), tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measured = estimate(prepared, model)
    assert measured.seconds > 0
    assert measured.peak_memory_mb > 1
    assert all(parameter.grad is None for parameter in model.parameters())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_micro_batch_that_does_not_fit_the_memory_is_told_with_a_way_out(base: Path) -> None:
    class Full(SftObjective):
        def forward(self, model: Any, rows: Sequence[Any]) -> Outcome:
            raise torch.OutOfMemoryError

    recipe = Recipe(micro_batch_size=6)
    policy, model = started(base, recipe)
    prepared = prepare_sft(ROWS, [], policy, model, recipe)
    full = replace(prepared, objective=Full(prepared.objective.layout))
    with pytest.raises(TrainingError, match="a micro-batch of 6 rows") as fault:
        estimate(full, model)
    assert "micro_batch_size=3" in fault.value.next_step


# --- whole runs --------------------------------------------------------------------------------------------------


def sft_run(
    base: Path, folder: Path, *, measure: bool = False, **knobs: Any
) -> tuple[dict[str, torch.Tensor], dict[int, dict[str, float]]]:
    often = {"eval_every_steps": 3, "save_every_steps": 6}
    recipe = Recipe(learning_rate=1e-2, max_steps=6, lora_dropout=0.0, layout="packed", **often, **knobs)
    policy, model = started(base, recipe)
    prepared = prepare_sft(ROWS, [], policy, model, recipe)
    if measure:
        estimate(prepared, model)
    recorder = run(prepared, model, recipe, folder)
    return trainable(model), recorder.history | {0: score_held_out(prepared, model)}


SPLITS: list[dict[str, Any]] = [
    {"micro_batch_size": 3},
    {"grad_accum": 8},
    {"micro_batch_size": 2, "grad_accum": 4},
]


@pytest.mark.big
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_bug_1_accumulation_is_exact_through_a_whole_run(
    base: Path, tmp_path: Path, split: dict[str, Any]
) -> None:
    """Rows of uneven length, six steps; how a step is cut into micro-batches does not show in the weights. (In a layout
    that pads, smaller micro-batches may make it worth reading rows in another order.)"""
    whole, seen = sft_run(base, tmp_path / "whole", micro_batch_size=8)
    parts, also = sft_run(base, tmp_path / "parts", **split)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-5, msg=name)
    for step, values in seen.items():
        for name in ("train_loss", "valid_loss", "full_valid_loss", "train_mean_token_accuracy", "entropy"):
            assert also[step].get(name) == pytest.approx(values.get(name), abs=1e-5), (step, name)


def test_the_estimate_does_not_change_the_run(base: Path, tmp_path: Path) -> None:
    plain, _ = sft_run(base, tmp_path / "a")
    measured, _ = sft_run(base, tmp_path / "b", measure=True)
    assert all(torch.equal(measured[name], value) for name, value in plain.items())


@pytest.mark.parametrize("phase", PHASES)
def test_bug_10_every_trainable_tensor_moves_in_one_step(base: Path, tmp_path: Path, phase: str) -> None:
    """From an adapter that does something: where B is 0, as in a fresh one, A has no gradient yet."""
    recipe = Recipe(max_steps=1, learning_rate=1e-2, warmup_ratio=0.0, lora_dropout=0.0)
    prepared, _, model = prepared_for(phase, base, recipe, tmp_path / "cache")
    before = trainable(stir(model))
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    run(prepared, model, recipe, tmp_path / "run")
    after = trainable(model)
    assert after.keys() == before.keys()
    assert [name for name, value in before.items() if torch.equal(after[name], value)] == []
    assert ("score" in "".join(after)) == (phase == "reward")
    parameters = dict(model.named_parameters())
    assert all(torch.equal(parameters[name], value) for name, value in frozen.items())


@pytest.mark.parametrize("phase", PHASES)
def test_what_needs_held_out_rows_says_when_there_are_none(base: Path, tmp_path: Path, phase: str) -> None:
    asked = Recipe(keep_best=True, early_stopping=2, layout="plain")
    for val_fraction, notes in ((0.0, 1), (0.2, 0)):
        recipe = asked.model_copy(update={"val_fraction": val_fraction})
        prepared, _, _ = prepared_for(phase, base, recipe, tmp_path)
        said = [note for note in prepared.preflight.notes if "keep_best and early_stopping" in note]
        assert len(said) == notes
    unasked, _, _ = prepared_for(phase, base, Recipe(val_fraction=0.0, layout="plain"), tmp_path)
    assert not any("held out" in note for note in unasked.preflight.notes)


def test_a_fresh_adapter_follows_from_the_seed_alone_and_changes_nothing_yet(base: Path) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    policy = load_policy(spec_of(base), device="cpu")
    with torch.no_grad():
        bare = policy.model(ids).logits.clone()
    made = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        model = add_adapter(load_policy(spec_of(base), device="cpu"), Recipe(seed=7))
        with torch.no_grad():
            assert torch.equal(model.eval()(ids).logits, bare)  # B = 0
        made.append(trainable(model))
    assert all(torch.equal(made[0][name], value) for name, value in made[1].items())
    other = trainable(add_adapter(load_policy(spec_of(base), device="cpu"), Recipe(seed=8)))
    assert any(not torch.equal(made[0][name], value) for name, value in other.items() if "lora_A" in name)


# --- what is trained is what is served ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_bug_3_and_bug_5_training_ids_are_serving_ids(kind: str, tmp_path: Path) -> None:
    """What the model reads first when it answers is the prompt of the row and of the pair, with one BOS where the base
    has one; and what follows it in training is the answer, to the character, and the end token."""
    policy = load_policy(spec_of(make_base(tmp_path / kind, kind)), device="cpu", system_prompt="Be brief.")
    question, answer = "Why  so?", " It is: naïve, therefore…  "
    read: list[list[int]] = []
    hook = policy.model.register_forward_pre_hook(
        lambda _module, _args, inputs: read.append(inputs["input_ids"][0].tolist()), with_kwargs=True
    )
    answer_all(policy, [Question(question, answer)], max_new_tokens=1)
    hook.remove()
    row = encode([chat(question, answer)], policy.chat, 200).examples[0]
    two = encode_pairs([replace(PAIRS[0], prompt=question, rejected=answer)], policy.chat, 200).examples[0]
    assert list(row.prompt) == list(two.prompt) == read[0]
    bos = policy.tokenizer.bos_token_id
    uses_bos = kind in ("llama", "gpt_neox")
    assert row.prompt.count(bos) == int(uses_bos)
    assert not uses_bos or row.prompt[0] == bos
    for ids in (row.branches[0], two.rejected):
        assert ids[-1] == policy.chat.end_id
        assert policy.chat.decode(ids[:-1]) == answer
        assert bos is None or bos == policy.chat.end_id or bos not in ids


@pytest.mark.big
@pytest.mark.parametrize("layout", ["plain", "packed_shared"])
def test_bug_4_a_model_that_pads_with_its_end_token_learns_to_stop(tmp_path: Path, layout: str) -> None:
    """Rows of two lengths, so that the shorter one is padded: its own end token is a label, the padding is not."""
    folder = make_base(tmp_path / "gpt_neox", "gpt_neox")
    rows = [chat("Hi?", "Yes."), chat("And what of the others?", "No, none of them at all.")]
    recipe = Recipe(
        num_epochs=90, learning_rate=2e-2, warmup_ratio=0, lora_r=16, lora_alpha=32, lora_dropout=0.0, layout=layout
    )  # fmt: skip
    policy, model = started(folder, recipe)
    assert policy.tokenizer.pad_token_id == policy.chat.end_id
    prepared = prepare_sft(rows, [], policy, model, recipe)
    assert all(example.branches[0][-1] == policy.chat.end_id for example in prepared.train)
    assert prepared.objective.counts(prepared.train) == {
        "tokens": sum(len(policy.chat.completion_ids(row.text)) for row in rows)
    }
    run(prepared, model, replace_eval(recipe), tmp_path / "run")
    told = answer_all(
        replace(policy, model=model),
        [Question(row.prompt or "", row.text) for row in rows],
        max_new_tokens=40,
    )
    assert [(one.answer, one.finish_reason) for one in told] == [(row.text, "stop") for row in rows]


def replace_eval(recipe: Recipe) -> Recipe:
    """The same recipe; its checkpoints come at the end alone."""
    return recipe.model_copy(update={"save_every_steps": 10_000})
