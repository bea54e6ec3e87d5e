"""Names of bases: what they resolve to, and what the errors suggest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlm.bases import BASE_NAMES, resolve_base
from dlm.errors import BaseModelError
from dlm.recipe import Choice, Recipe, resolve, resolve_preference, resolve_reward, resolve_rft


def model_folder(path: Path, **config: object) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("name", [*BASE_NAMES, "hf:org/some-model"])
def test_defaults_are_knobs_in_range_with_reasons(name: str) -> None:
    spec = resolve_base(name)
    assert spec.name == name
    assert spec.notes
    for knob, choice in spec.defaults.items():
        assert isinstance(choice, Choice), knob
        assert len(choice.reason) > 10, knob
    recipe = resolve(Recipe(), spec.defaults, {}).recipe
    phases = {
        "": recipe,
        "preference": resolve_preference({}, spec.defaults, {})[0],
        "reward": resolve_reward({}, spec.defaults, {})[0],
        "rft": resolve_rft({}, spec.defaults, {})[0],
    }
    for knob, choice in spec.defaults.items():
        phase, _, name = knob.rpartition(".")
        value = getattr(phases[phase], name)
        assert (value, type(value)) == (choice.value, type(choice.value)), knob


def test_every_kind() -> None:
    pocket = resolve_base("pocket")
    assert (pocket.kind, Path(pocket.location).name) == ("embedded", "pocket")
    assert Path(pocket.location).is_dir()
    small = resolve_base("smollm2-135m")
    assert (small.kind, small.location) == ("hub", "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert resolve_base("hf:gpt2").location == "gpt2"
    assert resolve_base("hf:Qwen/Qwen2.5-0.5B").location == "Qwen/Qwen2.5-0.5B"


def test_smaller_bases_learn_at_higher_rates() -> None:
    names = ("pocket", "smollm2-135m", "smollm2-360m", "smollm2-1.7b")
    rates = [resolve_base(name).defaults["learning_rate"].value for name in names]
    assert rates == sorted(rates, reverse=True)
    steps = [resolve_base(name).defaults["min_steps"].value for name in names]
    assert steps == sorted(steps, reverse=True)


def test_folders_are_relative_to_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "docs" / "model")
    assert resolve_base("./model", tmp_path / "docs").location == str(folder)
    assert resolve_base("../docs/model", tmp_path / "docs").location == str(folder)
    assert resolve_base(str(folder)).location == str(folder)
    monkeypatch.chdir(folder)
    assert resolve_base("./").location == resolve_base(".").location == str(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = resolve_base("~/docs/model", Path("/nowhere"))
    assert (spec.location, spec.kind) == (str(folder), "folder")


@pytest.mark.parametrize(
    ("config", "rate"),
    [
        ({"hidden_size": 128, "num_hidden_layers": 4, "vocab_size": 1024}, 5e-3),
        ({"n_embd": 768, "n_layer": 12, "vocab_size": 50257}, 1e-3),  # GPT-2's names: 124M
        ({"hidden_size": 896, "num_hidden_layers": 24, "vocab_size": 151936}, 5e-4),
        ({"hidden_size": 2048, "num_hidden_layers": 24, "vocab_size": 49152}, 2e-4),
        ({"hidden_size": "many", "num_hidden_layers": None}, 2e-4),
        ({}, 2e-4),
    ],
)
def test_a_folders_knobs_follow_its_size(tmp_path: Path, config: dict[str, object], rate: float) -> None:
    model_folder(tmp_path / "model", **config)
    assert resolve_base("./model", tmp_path).defaults["learning_rate"].value == rate


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("poket", "base_model: pocket"),
        ("Pocket", "base_model: pocket"),
        ("smollm2-135", "base_model: smollm2-135m"),
        ("qwen2.5-0.5B", "base_model: qwen2.5-0.5b"),
        ("Qwen/Qwen3-0.6B", "base_model: hf:Qwen/Qwen3-0.6B"),
        ("model", "base_model: ./model"),
        ("zzzz", "pocket, one of the other names"),
        ("", "pocket, one of the other names"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(tmp_path: Path, name: str, hint: str) -> None:
    model_folder(tmp_path / "model")
    with pytest.raises(BaseModelError, match="unknown base") as caught:
        resolve_base(name, tmp_path)
    assert hint in caught.value.next_step
    assert "pocket" in caught.value.expected


@pytest.mark.parametrize("name", ["hf:", "hf:a/b/c", "hf:../x", "hf:a b", "hf:/etc", "hf:a/../b", "hf:é/x"])
def test_an_impossible_hub_id_is_refused(name: str) -> None:
    with pytest.raises(BaseModelError, match="no model on the Hub"):
        resolve_base(name)


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="no folder"):
        resolve_base("./absent", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match="holds no model"):
        resolve_base("./empty", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BaseModelError, match="no folder"):
        resolve_base("./file", tmp_path)
    with pytest.raises(BaseModelError, match="no folder"):
        resolve_base("./a\0b", tmp_path)
    (tmp_path / "empty" / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseModelError, match="an adapter, not a base") as caught:
        resolve_base("./empty", tmp_path)
    assert "--merged" in caught.value.next_step


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\udcff"])
def test_a_folder_with_a_broken_config_is_refused(tmp_path: Path, text: str) -> None:
    model_folder(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BaseModelError, match=r"config\.json"):
        resolve_base("./model", tmp_path)
