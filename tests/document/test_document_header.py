"""The header: everything the format knows loads, every fault is placed, nothing the existing tool wrote is refused."""

from __future__ import annotations

import re

import pytest

from dlm.document import Header, Preference, PreferenceSettings, Reward, Rft, Training, new_document, parse
from dlm.errors import DocumentError, Problem
from dlm.recipe import Choice, PreferenceRecipe, Recipe, RewardRecipe, RftRecipe, resolve
from hostile_text import HEADER

EVERYTHING = """\
---
dlm_id: 01KPQ9X1000000000000000000
dlm_version: 15
base_model: hf:org/name
system_prompt: |
  Be brief.
  Be kind.
training:
  adapter: dora
  lora_r: 256
  lora_alpha: 1
  lora_dropout: 0.5
  target_modules: [q_proj, v_proj]
  sequence_len: 64
  micro_batch_size: 4
  grad_accum: auto
  learning_rate: 2e-4
  num_epochs: 1
  optimizer: adamw_torch
  lr_scheduler: constant
  warmup_ratio: 0
  precision: bf16
  seed: 7
  sources:
    - path: notes
      include: ["**/*.md"]
      exclude: [drafts/*]
    - {path: a.txt}
  adapters:
    tone: {adapter: dora, lora_r: 4, lora_alpha: 8, lora_dropout: 0, target_modules: auto, learning_rate: 1e-3}
    facts_2: {}
  preference:
    enabled: no
    method: simpo
    loss_type: ipo_sum
    reference: base
    min_margin: 0.5
    include_mined: no
    hyperparams:
      {beta: 0.3, alpha: 0.2, gamma: 1, label_smoothing: 0.1, sft_weight: 2, learning_rate: 1.0E-6, num_epochs: 2}
  reward: {center: 0, learning_rate: 1e-3, num_epochs: 2, min_margin: 1.5, include_mined: no}
export: {}
judge: cli:./score --fast
evals:
  tables: {task: spreadsheet, seed: 3, n: 50, split: test, grader: spreadsheet, max_new_tokens: 512}
  own: {cases: cases.jsonl}
gate:
  conditions: [strict_preservation >= 0.95]
---
"""


def header_of(*lines: str) -> Header:
    """The header with these lines instead of the defaults."""
    text = "\n".join(lines)
    return parse(f"---\ndlm_id: 01KPQ9X1000000000000000000\nbase_model: pocket\n{text}\n---\n").header


def problems_of(*lines: str) -> list[Problem]:
    """The problems of a header with these lines from line 4 on."""
    with pytest.raises(DocumentError) as caught:
        header_of(*lines)
    return list(caught.value.problems)


def test_every_key_of_the_format_loads() -> None:
    document = parse(EVERYTHING)
    header = document.header
    assert not document.warnings
    assert header.model_fields_set == set(Header.model_fields)
    assert header.system_prompt == "Be brief.\nBe kind.\n"
    training = header.training
    assert (training.adapter, training.lora_r, training.learning_rate, training.seed) == (
        "dora",
        256,
        2e-4,
        7,
    )
    assert training.target_modules == ["q_proj", "v_proj"]
    assert (training.micro_batch_size, training.grad_accum) == (4, "auto")
    assert [source.path for source in training.sources or []] == ["notes", "a.txt"]
    assert (training.sources or [])[1].include == ["**/*"]
    assert set(training.adapters or {}) == {"tone", "facts_2"}
    assert training.preference.enabled is False
    assert training.preference.model_fields_set == set(Preference.model_fields)
    assert training.preference.stated == {
        "method": "simpo", "loss_type": "ipo_sum", "reference": "base", "min_margin": 0.5, "include_mined": False,
        "beta": 0.3, "alpha": 0.2, "gamma": 1.0, "label_smoothing": 0.1, "sft_weight": 2.0,
        "learning_rate": 1e-6, "num_epochs": 2,
    }  # fmt: skip
    assert training.reward.stated == {
        "center": 0.0, "learning_rate": 1e-3, "num_epochs": 2, "min_margin": 1.5, "include_mined": False,
    }  # fmt: skip
    assert header.evals["tables"].n == 50
    assert header.gate is not None
    assert document.places["training.sources.1.path"] == (28, 14)


def test_defaults_are_those_of_the_format() -> None:
    header = header_of()
    assert header.dlm_version == 15
    assert header.training == Training.model_validate({})
    preference = header.training.preference
    assert (preference.enabled, preference.method, preference.loss_type, preference.reference) == (
        None, "dpo", "sigmoid", "pre_adapter",
    )  # fmt: skip
    numbers = preference.hyperparams.model_dump()
    assert {name: numbers[name] for name in ("beta", "alpha", "learning_rate", "num_epochs")} == {
        "beta": 0.1, "alpha": 0.1, "learning_rate": 5e-6, "num_epochs": 1,
    }  # fmt: skip


def test_the_header_and_the_recipe_know_the_same_knobs_of_a_phase() -> None:
    """A knob is described once; the document only nests them."""
    nested = {**Preference.model_fields, **PreferenceSettings.model_fields}
    assert nested.keys() - {"enabled", "hyperparams"} == PreferenceRecipe.model_fields.keys()
    assert Reward.model_fields.keys() == RewardRecipe.model_fields.keys()
    assert Rft.model_fields.keys() == RftRecipe.model_fields.keys()
    for name, field in PreferenceRecipe.model_fields.items():
        assert (nested[name].default, nested[name].description) == (field.default, field.description)
        assert nested[name].metadata == field.metadata


def test_only_stated_knobs_count_as_the_headers() -> None:
    training = header_of("training:", "  lora_r: 4").training
    resolved = resolve(training, {"lora_r": Choice(64, "big"), "num_epochs": Choice(9, "small data")}, {})
    assert (resolved.recipe.lora_r, resolved.recipe.num_epochs) == (4, 9)
    assert type(resolved.recipe) is Recipe


@pytest.mark.parametrize(
    "lines",
    [
        ["training:", "  # lora_r: 4"],
        ["training: null", "export: ~", "evals:", "gate:"],
        ["training:", "  sources: null", "  adapters: null", "  precision: null"],
        ["training: {preference: {hyperparams: }}"],
        ["training: &t", "  lora_r: 4", "evals: {a: &e {task: x}, b: *e, c: {<<: *e, n: 3}}"],
        ['"system_prompt": "a # b"'],
        ["system_prompt: yes"],
        ["judge: 12", "dlm_version: '15'"],
        ["training: {lora_r: !!int 4, seed: 1_000}"],
    ],
)
def test_unusual_but_sound_headers_load(lines: list[str]) -> None:
    assert header_of(*lines).dlm_id


def test_keys_of_the_existing_tool_are_warnings_that_name_them() -> None:
    header = """\
---
dlm_id: 01KPQ9X1000000000000000000
dlm_version: 9
base_model: qwen2.5-1.5b
training:
  adapter: qlora
  optimizer: paged_adamw_8bit
  cpt: {schedule: dapt, embed_warmup_steps: 10}
  gate: {enabled: true}
  cache: {max_bytes: 10}
  audio: {auto_resample: true}
  sources_policy: strict
  sources:
    - {path: notes, max_files: 3, max_bytes_per_file: 10}
  adapters:
    tone: {adapter: qlora}
export:
  default_quant: Q8_0
  default_temperature: 0.2
  default_top_p: 0.9
---
"""
    document = parse(header)
    assert document.header.training.adapter == "lora"
    assert document.header.training.optimizer == "adamw_torch"
    lines = header.split("\n")
    for warning in document.warnings:
        assert warning.code == "unsupported"
        named = warning.message.split(" ")[0].rstrip(":").split(".")[-1]
        assert named in lines[warning.line - 1]
    assert [warning.line for warning in document.warnings] == [6, 7, 8, 9, 10, 11, 12, 14, 14, 16, 18, 19, 20]


@pytest.mark.parametrize(
    ("line", "column", "code", "words"),
    [
        ("sytem_prompt: x", 1, "unknown-key", "system_prompt"),
        ("lora_r: 4", 1, "unknown-key", "training.lora_r"),
        ("training: {lora_rank: 4}", 12, "unknown-key", "lora_r"),
        ("training: {qlora: true}", 12, "unknown-key", "adapter is lora or dora"),
        ("training: {logging_steps: 10}", 12, "unknown-key", "every step is logged"),
        ("training: {gradient_checkpointing: true}", 12, "unknown-key", "known: adapter,"),
        ("training: {save_steps: 10}", 12, "unknown-key", "save_every_steps"),
        ("training: {lora_r: 0}", 20, "bad-value", "at least 1"),
        ("training: {lora_r: 1.5}", 20, "bad-value", "whole number"),
        ("training: {seed: yes}", 18, "bad-value", "whole number"),
        ("training: {lora_dropout: 0.6}", 26, "bad-value", "at most 0.5"),
        ("training: {learning_rate: .nan}", 27, "bad-value", "number"),
        ("training: {learning_rate: nan}", 27, "bad-value", "finite"),
        ("training: {learning_rate: inf}", 27, "bad-value", "finite"),
        ("training: {learning_rate: 0}", 27, "bad-value", "more than 0"),
        ("training: {micro_batch_size: 0}", 30, "bad-value", "'auto' or a number"),
        ("training: {micro_batch_size: many}", 30, "bad-value", "auto"),
        ("training: {target_modules: 3}", 28, "bad-value", "'auto' or a list"),
        ("training: {precision: fp8}", 23, "bad-value", "bf16"),
        ("training: {optimizer: sgd}", 23, "bad-value", "adamw_torch"),
        ("training: {sources: notes}", 21, "bad-value", "a list"),
        ("training: {sources: [{path: ''}]}", 29, "bad-value", "some text"),
        ("training: {sources: [{}]}", 22, "missing-key", "path"),
        ("training: {adapters: {Tone: {}}}", 23, "bad-key", "Tone"),
        ("training: {adapters: {tone: {num_epochs: 3}}}", 30, "unknown-key", "num_epochs"),
        ("training: {preference: {enabled: maybe}}", 34, "bad-value", "true or false"),
        ("training: {preference: {beta: 0.1}}", 25, "unknown-key", "hyperparams.beta"),
        ("training: {preference: {method: ppo}}", 33, "bad-value", "'simpo'"),
        ("training: {preference: {hyperparams: {label_smoothing: 0.5}}}", 56, "bad-value", "less than 0.5"),
        ("training: {preference: {min_margin: -1}}", 37, "bad-value", "at least 0"),
        ("training: {reward: {centre: 1}}", 21, "unknown-key", "center"),
        ("training: {reward: {num_epochs: 0}}", 33, "bad-value", "at least 1"),
        ("training: [a]", 11, "bad-value", "a list"),
        ("dlm_version: 16", 14, "bad-value", "newer"),
        ("dlm_version: 0", 14, "bad-value", "at least 1"),
        ("export: {quant: 3}", 10, "unknown-key", "quant"),
        ("evals: {t: {}}", 12, "bad-value", "either task or cases"),
        ("evals: {t: {task: x, cases: y}}", 12, "bad-value", "either task or cases"),
        ("evals: {t: {task: x, n: 0}}", 25, "bad-value", "at least 1"),
        ("gate: {conditions: x}", 20, "bad-value", "a list"),
        ("base_model: again", 1, "duplicate-key", "line 3"),
        ("system_prompt: [a]", 16, "bad-value", "text"),
        ("judge: ''", 8, "bad-value", "some text"),
        ("judge: !!python/object:os.system x", 8, "yaml", "tag"),
        ("judge: *nobody", 8, "yaml", "nobody"),
        ("? [a, b]\n: c", 3, "yaml", "plain text"),
        ("𝒳: 1", 1, "unknown-key", "𝒳"),
        ("training: {𝒳𝒳: 1, lora_r: 0}", 27, "bad-value", "at least 1"),
    ],
)  # fmt: skip
def test_each_fault_is_told_once_at_its_place(line: str, column: int, code: str, words: str) -> None:
    problem = next(problem for problem in problems_of(line) if problem.code == code)
    assert (problem.line, problem.column) == (4, column)
    assert words in problem.message
    assert len([known for known in problems_of(line) if known.line == 4]) == (2 if "𝒳𝒳" in line else 1)


def test_one_syntax_error_hides_no_other_fault() -> None:
    problems = problems_of(
        "judge: [a", "training:", "  lora_r: 0", '  seed: "4', "  lora_alpha: 0", "evals: %", "gaet: 3"
    )
    assert [(problem.line, problem.code) for problem in problems] == [
        (4, "yaml"), (6, "bad-value"), (7, "yaml"), (8, "bad-value"), (9, "yaml"), (10, "unknown-key"),
    ]  # fmt: skip


def test_characters_that_end_lines_only_in_yaml_move_no_line_numbers() -> None:
    problems = problems_of('system_prompt: "a\u2028b\x85c\rd"', "training: {lora_r: 0}")
    assert [(problem.line, problem.column) for problem in problems] == [(5, 20)]


def test_a_knob_that_is_not_here_suggests_no_other_one() -> None:
    for name in ("qlora", "logging_steps"):
        (problem,) = problems_of(f"training: {{{name}: 1}}")
        assert not problem.fix
        assert "did you mean" not in problem.message


def test_missing_keys_are_reported_at_the_header() -> None:
    with pytest.raises(DocumentError) as caught:
        parse("---\nsystem_prompt: x\n---\n")
    assert [(problem.line, problem.code) for problem in caught.value.problems] == [(1, "missing-key")] * 2


def test_the_starter_explains_every_key_with_its_default() -> None:
    starter = new_document()
    header = starter.split("\n---\n")[0]
    for name, field in Recipe.model_fields.items():
        stated = re.search(rf"^#\s+{name}: (\S+)", header, re.MULTILINE)
        assert stated, name
        loaded = getattr(header_of(f"training: {{{name}: {stated[1]}}}").training, name)
        assert loaded == field.default, name
    known = [Header, Training, Preference, PreferenceSettings, Reward, Rft]
    for name in [name for model in known for name in model.model_fields]:
        assert re.search(rf"^[#\s]*{name}:", header, re.MULTILINE), name


def test_the_starter_loads_with_every_line_uncommented() -> None:
    text = new_document()
    head, body = text[4:].split("\n---\n", 1)
    head = re.sub(r"(?m)^# (?=(system_prompt|training|export|judge|evals|gate):| {2,})", "", head)
    head = re.sub(r"(?m)^  # (?=adapters)", "  ", head)
    document = parse(f"---\n{head}\n---\n{body}")
    assert document.header.model_fields_set == set(Header.model_fields)
    training = document.header.training
    assert training.model_fields_set == set(Training.model_fields)
    assert training.preference.model_fields_set == set(Preference.model_fields)
    assert training.preference.hyperparams == PreferenceSettings.model_validate({})
    assert training.reward == Reward.model_validate({})
    assert training.reward.model_fields_set == set(Reward.model_fields)
    assert training.rft == Rft.model_validate({})
    assert training.rft.model_fields_set == set(Rft.model_fields)


def test_header_is_not_needed_twice() -> None:
    assert parse(HEADER + "---\ntext\n").sections[0].prose == "---\ntext"
