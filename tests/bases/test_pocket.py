"""The embedded base as it lies in the package: loads without a warning, one BOS, exact text, and it can do its tasks."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.tasks import spreadsheet, style

POCKET = Path(__file__).resolve().parents[2] / "src" / "dlm" / "bases" / "pocket"
pytestmark = pytest.mark.torch
any_text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))


@pytest.fixture(scope="module")
def tokenizer():
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(POCKET)


@pytest.fixture(scope="module")
def model():
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return transformers.AutoModelForCausalLM.from_pretrained(POCKET).eval()


def _ask(model, tokenizer, question: str, budget: int) -> str:
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    out = model.generate(**prompt, max_new_tokens=budget, do_sample=False)
    return tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)


def test_the_files_are_small_and_complete():
    files = {file.name: file.stat().st_size for file in POCKET.iterdir() if file.is_file()}
    assert sum(files.values()) < 12_000_000
    wanted = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "card.md",
    }
    assert wanted <= files.keys()


def test_it_is_a_plain_llama_in_float32(model):
    import torch

    assert type(model).__name__ == "LlamaForCausalLM"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.max_position_embeddings == 2048
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def test_special_tokens_agree_everywhere(model, tokenizer):
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        number = getattr(tokenizer, name)
        assert getattr(model.config, name) == number == getattr(model.generation_config, name)
    assert len(tokenizer) == model.config.vocab_size
    assert json.loads((POCKET / "tokenizer_config.json").read_text())["model_max_length"] == 2048


@pytest.mark.parametrize("system", [None, "Answer briefly."])
def test_the_template_writes_exactly_one_bos(tokenizer, system):
    messages = ([{"role": "system", "content": system}] if system else []) + [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "And now?"},
    ]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    # Text that a caller rendered first and tokenises later must give the same ids: the tokenizer adds nothing.
    assert tokenizer(text)["input_ids"] == ids
    assert text.endswith("<|user|>\nAnd now?<|end|>\n<|assistant|>\n")


def test_the_answer_ends_with_a_live_end_token(tokenizer):
    messages = [{"role": "user", "content": "Hello."}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    whole = tokenizer.apply_chat_template(
        [*messages, {"role": "assistant", "content": "Hi."}], return_dict=True
    )["input_ids"]
    assert whole[: len(prompt)] == prompt
    assert tokenizer.decode(whole[len(prompt) :]) == "Hi.<|end|>\n"
    assert whole[-2] == tokenizer.eos_token_id


@given(any_text)
@settings(deadline=None)
def test_any_text_comes_back_exactly(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=False) == text


@given(st.from_regex(r"[0-9]{1,12}", fullmatch=True))
@settings(deadline=None)
def test_digits_stand_alone(tokenizer, digits):
    assert len(tokenizer(digits)["input_ids"]) == len(digits)


def test_it_cleans_small_tables(model, tokenizer):
    cases = spreadsheet.generate(900_500, 6, (4, 6))
    exact = sum(
        spreadsheet.match_rows(case, _ask(model, tokenizer, case.prompt, 160)).exact for case in cases
    )
    assert exact >= 5


def test_it_answers_from_a_document_and_on_topic(model, tokenizer):
    cases = style.generate(900_500, 12)
    right = 0
    for case in cases:
        reply = _ask(model, tokenizer, case.question, 80)
        right += style.fact_right(case, reply) if case.kind == "fact" else style.on_topic(case, reply)
    assert right >= 10
