"""Reference log-probs: of the right model (bug 6), without dropout (bug 7), never stale (bug 8), and what a damaged cache
costs: nothing but the time to fill it."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bases_on_the_spot import make_base, spec_of
from dlm.errors import NonFiniteError
from dlm.model import completion_logprobs, load_policy
from dlm.recipe import PreferenceRecipe, Recipe
from dlm.training import Pair, Prepared, encode_pairs, prepare_preference
from dlm.training.adapters import adapter_hash
from dlm.training.layout import LAYOUT_NAMES, Layout
from dlm.training.objectives import Reference
from dlm.training.reference import (
    CachedAnswer,
    ReferenceCache,
    ReferenceReport,
    Scorer,
    compute_reference,
)
from phase_runs import PAIRS, ROWS, make_version, run, started, stir

pytestmark = pytest.mark.torch

SOME = PAIRS[:6]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("reference") / "llama", "llama")


@pytest.fixture(scope="module")
def version(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_version(base, tmp_path_factory.mktemp("versions") / "v0001", lora_dropout=0.5)


@dataclass
class Setting:
    """Everything a reference depends on, to be changed one thing at a time."""

    base: Path
    version: Path
    cache: Path
    pairs: list[Pair]
    system_prompt: str | None = None
    products: str = "torch"
    with_adapter: bool = True
    layout: str = "plain"

    def compute(self) -> tuple[Reference, ReferenceReport]:
        policy, model = started(self.base, Recipe(), self.version, self.system_prompt)
        layout = Layout.of(self.layout, model, policy.tokenizer.pad_token_id, "cpu")
        scorer = Scorer.of(policy, model, self.products, with_adapter=self.with_adapter)
        examples = encode_pairs(self.pairs, policy.chat, 256).examples
        return compute_reference(model, layout, examples, ReferenceCache(self.cache), scorer)


@pytest.fixture
def setting(base: Path, version: Path, tmp_path: Path) -> Setting:
    return Setting(base, version, tmp_path / "cache", list(SOME))


# --- what it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_adapter", [True, False])
def test_the_numbers_are_the_models_own(setting: Setting, with_adapter: bool) -> None:
    """Against an independent pass over whole rows, with the adapter and without."""
    setting.with_adapter = with_adapter
    logps, report = setting.compute()
    policy, model = started(setting.base, Recipe(), setting.version if with_adapter else None)
    rows = [
        (policy.chat.prompt_ids(pair.prompt), policy.chat.completion_ids(answer))
        for pair in SOME
        for answer in (pair.chosen, pair.rejected)
    ]
    expected = [float(part.sum()) for part in completion_logprobs(model.eval(), rows)]
    found = [value for pair in SOME for value in logps[pair.key]]
    assert found == pytest.approx(expected, rel=1e-5)
    assert report == ReferenceReport(reused=0, computed=12)


@pytest.mark.parametrize("name", LAYOUT_NAMES)
def test_every_layout_gives_the_same_reference(setting: Setting, name: str, tmp_path: Path) -> None:
    plain, _ = setting.compute()
    other, _ = replace(setting, cache=tmp_path / "other", layout=name).compute()
    for key, values in plain.items():
        assert other[key] == pytest.approx(values, rel=1e-5)


def first_step(base: Path, version: Path, folder: Path, **choices: Any) -> tuple[dict[str, float], Prepared]:
    """What a preference run says of its first step; the rate is so small that nothing moves within fp32."""
    recipe = Recipe(max_steps=1, learning_rate=1e-30, lora_dropout=0.5, layout="packed_shared")
    policy, model = started(base, recipe, version)
    preference = PreferenceRecipe(**choices)
    prepared = prepare_preference(PAIRS, ROWS, policy, model, recipe, preference, folder / "cache")
    checkpoints = Path(tempfile.mkdtemp(dir=folder))
    return run(prepared, model, recipe, checkpoints).history[1], prepared


def test_bug_6_the_first_loss_is_ln_2_and_no_pair_is_ranked(
    base: Path, version: Path, tmp_path: Path
) -> None:
    """From an adapter that does something, dropout .5 in version and recipe: the policy still is its reference."""
    values, _ = first_step(base, version, tmp_path)
    assert values["train_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert values["rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert (values["rewards/accuracies"], values["rewards/ties"]) == (0, 1)
    assert (values["val_pref_acc"], values["val_pref_ties"]) == (0.5, 1)
    away, _ = first_step(base, version, tmp_path, reference="base")
    assert abs(away["rewards/margins"]) > 1e-3  # the base is another reference, and it shows


@pytest.mark.parametrize("with_adapter", [True, False])
def test_bug_7_dropout_is_off_in_the_reference(setting: Setting, tmp_path: Path, with_adapter: bool) -> None:
    """A model that is training, with dropout .5 live: two passes give the same bits, those of a model without dropout,
    and it is left in training."""
    quiet, _ = replace(setting, with_adapter=with_adapter).compute()
    policy = load_policy(spec_of(setting.base), setting.version, device="cpu", trainable=True)
    model = policy.model.train()
    ids = torch.tensor([[5, 6, 7, 8]])
    assert not torch.equal(model(ids).logits, model(ids).logits)  # live indeed
    layout = Layout.of("plain", model, policy.tokenizer.pad_token_id, "cpu")
    scorer = Scorer.of(policy, model, "torch", with_adapter=with_adapter)
    examples = encode_pairs(SOME, policy.chat, 256).examples
    passes = [compute_reference(model, layout, examples, None, scorer)[0] for _ in range(2)]
    assert passes[0] == passes[1] == quiet
    assert model.training


def test_a_resumed_run_keeps_the_reference_it_began_with(base: Path, version: Path, tmp_path: Path) -> None:
    """Even where the cache is gone: it is computed from the version, before a checkpoint is loaded."""
    _, prepared = first_step(base, version, tmp_path)
    shutil.rmtree(tmp_path / "cache")
    _, again = first_step(base, version, tmp_path)
    assert prepared.objective.reference == again.objective.reference  # type: ignore[attr-defined]


def test_a_reference_that_is_no_number_names_its_pairs(setting: Setting) -> None:
    policy, model = started(setting.base, Recipe(), setting.version)
    examples = encode_pairs(SOME, policy.chat, 256).examples

    class Broken(Layout):
        def scores(self, model: Any, trees: Any, **options: Any) -> Any:
            found = super().scores(model, trees, **options)
            found.logprobs[found.owner == 3] = torch.nan  # the second pair's rejected answer
            return found

    layout = Layout.of("plain", model, policy.tokenizer.pad_token_id, "cpu")
    broken = Broken(layout.name, layout.pad_id, layout.device, layout.headless)
    scorer = Scorer.of(policy, model, "torch", with_adapter=True)
    with pytest.raises(NonFiniteError) as fault:
        compute_reference(model, broken, examples, ReferenceCache(setting.cache), scorer)
    by_length = sorted(examples, key=lambda one: (layout.positions([one]), one.pair.key))
    assert fault.value.found == f"pairs {by_length[1].pair.place}"
    assert setting.compute()[1].reused == 0  # nothing of it was kept


# --- when it is found again --------------------------------------------------------------------------------------


def test_order_and_company_do_not_matter(setting: Setting) -> None:
    whole, first = setting.compute()
    assert first.computed == 12
    for pairs in (SOME[::-1], SOME[2:4], [*SOME, *SOME], [replace(pair, line=99) for pair in SOME]):
        logps, report = replace(setting, pairs=list(pairs)).compute()
        assert report.computed == 0
        assert logps == {pair.key: whole[pair.key] for pair in pairs}
    more, report = replace(setting, pairs=PAIRS[:8]).compute()
    assert (report.reused, report.computed) == (12, 4)
    assert {key: more[key] for key in whole} == whole


def change(setting: Setting, what: str, tmp_path: Path) -> Setting:
    """The setting with one byte of one thing changed."""
    one = SOME[0]
    if what in ("prompt", "chosen", "rejected"):
        text: str = getattr(one, what)
        changed = replace(one, **{what: text[:-1] + chr(ord(text[-1]) ^ 1)})
        return replace(setting, pairs=[changed])
    if what == "system prompt":
        return replace(setting, system_prompt="Be brief.")
    if what == "products":
        return replace(setting, products="onednn")
    if what == "base alone":
        return replace(setting, with_adapter=False)
    if what in ("template", "base"):
        folder = shutil.copytree(setting.base, tmp_path / "changed")
        if what == "template":
            template = folder / "chat_template.jinja"
            assert "<|end|>" in template.read_text(encoding="utf-8")
            template.write_text(template.read_text(encoding="utf-8").replace("<|end|>", "<|end|>!", 1))
        else:
            change_one_byte(folder / "model.safetensors")
        return replace(setting, base=folder)
    folder = shutil.copytree(setting.version, tmp_path / "changed")
    if what == "adapter":
        change_one_byte(folder / "adapter_model.safetensors")
    else:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 12}), encoding="utf-8")
    return replace(setting, version=folder)


def change_one_byte(file: Path) -> None:
    """Flip the lowest bit of the last tensor's last number."""
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    tensors[name].view(torch.uint8).view(-1)[-4] ^= 1
    save_file(tensors, file, metadata={"format": "pt"})


CHANGES = (
    *("prompt", "chosen", "rejected", "template", "base"),
    *("adapter", "scale", "system prompt", "products", "base alone"),
)


@pytest.mark.parametrize("what", CHANGES)
def test_bug_8_one_changed_byte_misses(setting: Setting, what: str, tmp_path: Path) -> None:
    setting.pairs = [SOME[0]]
    _, filled = setting.compute()
    assert filled.computed == 2
    assert setting.compute()[1].computed == 0
    _, changed = change(setting, what, tmp_path).compute()
    assert changed.computed == (1 if what in ("chosen", "rejected") else 2)


def test_the_key_tells_where_the_prompt_ends() -> None:
    scorer = Scorer("b" * 64, "", "fp32", "torch", "cpu")
    assert scorer.key([1, 2], [3]) != scorer.key([1], [2, 3])
    assert scorer.key([1], [2]) != replace(scorer, precision="bf16").key([1], [2])
    assert scorer.key([1], [2]) != replace(scorer, device="cuda").key([1], [2])


def test_an_adapters_hash_is_of_what_it_does(base: Path, version: Path) -> None:
    _, model = started(base, Recipe(), version)
    same = adapter_hash(model)
    dropping = load_policy(spec_of(base), version, device="cpu", trainable=True).model
    assert adapter_hash(dropping) == same  # dropout is off in the reference
    assert adapter_hash(stir(model, 1e-6)) != same


# --- the cache on the disk ---------------------------------------------------------------------------------------


def answers(count: int, length: int = 3) -> dict[bytes, CachedAnswer]:
    return {
        bytes([number % 256, number // 256] * 16): CachedAnswer(
            np.full(length, -number / 3, dtype=np.float32), -float(number)
        )
        for number in range(count)
    }


def test_what_is_kept_comes_back_bit_for_bit(tmp_path: Path) -> None:
    cache, kept = ReferenceCache(tmp_path / "not yet there"), answers(1200)
    assert cache.read(list(kept)) == {}
    cache.write(kept)
    found = ReferenceCache(tmp_path / "not yet there").read([*kept, b"unknown"])
    assert found.keys() == kept.keys()
    for key, answer in kept.items():
        assert found[key].total == answer.total
        assert found[key].logprobs.dtype == np.float32
        assert np.array_equal(found[key].logprobs, answer.logprobs)
    assert cache.notes == []


def test_a_damaged_file_is_built_anew_with_a_word(setting: Setting) -> None:
    whole, _ = setting.compute()
    file = setting.cache / "reference.sqlite"
    file.write_bytes(b"not a database at all, and long enough to be read as one" * 90)
    cache = ReferenceCache(setting.cache)
    assert cache.read([b"k" * 32]) == {}
    assert len(cache.notes) == 1
    assert "built anew" in cache.notes[0]
    again, report = setting.compute()
    assert (again, report.computed) == (whole, 12)
    assert setting.compute()[1].computed == 0


def test_a_file_damaged_in_the_middle_gives_no_wrong_number(tmp_path: Path) -> None:
    kept = answers(400, length=40)
    ReferenceCache(tmp_path).write(kept)
    file = tmp_path / "reference.sqlite"
    data = bytearray(file.read_bytes())
    generator = np.random.default_rng(0)
    for place in generator.integers(4096, len(data), 40):
        data[place] ^= 0xFF
    file.write_bytes(data)
    cache = ReferenceCache(tmp_path)
    found = cache.read(list(kept))
    assert len(found) < len(kept)
    assert cache.notes
    for key, answer in found.items():
        assert answer.total == kept[key].total
        assert np.array_equal(answer.logprobs, kept[key].logprobs)


def test_a_cache_that_cannot_be_written_stops_nothing(setting: Setting) -> None:
    setting.cache.parent.mkdir(exist_ok=True)
    setting.cache.write_text("a file where the folder should be")
    logps, report = setting.compute()
    assert (len(logps), report.computed) == (6, 12)
    cache = ReferenceCache(setting.cache)
    cache.write(answers(1))
    assert "not kept" in cache.notes[0]
    nowhere = ReferenceCache(setting.cache.parent / ("long" * 100))  # no name a disk takes
    assert nowhere.read(list(answers(1))) == {}
    nowhere.write(answers(1))
    assert "not kept" in nowhere.notes[0]


def test_a_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    kept = answers(3)
    ReferenceCache(tmp_path).write(kept)
    writer = sqlite3.connect(tmp_path / "reference.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM answers")
    cache = ReferenceCache(tmp_path)
    assert cache.read(list(kept)).keys() == kept.keys()
    assert cache.notes == []
    writer.close()


def test_pairs_that_share_an_answer_score_it_once(setting: Setting) -> None:
    first = SOME[0]
    setting.pairs = [first, replace(first, rejected="No.")]
    _, report = setting.compute()
    assert report.computed == 3


def test_an_example_is_scored_alike_alone_and_in_company(setting: Setting, tmp_path: Path) -> None:
    whole, _ = setting.compute()
    alone, _ = replace(setting, cache=tmp_path / "alone", pairs=[SOME[3]]).compute()
    assert alone[SOME[3].key] == pytest.approx(whole[SOME[3].key], rel=1e-5)
