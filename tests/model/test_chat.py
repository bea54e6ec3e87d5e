"""The renderer: training ids are serving ids, one BOS, exact spans, and no control tokens from a document's text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bases_on_the_spot import ARCHITECTURES, CHATML_TEMPLATE, KINDS, LLAMA_TEMPLATE, make_tokenizer
from dlm.errors import BaseModelError
from dlm.model.chat import PLAIN_TEMPLATE, Chat
from hostile_text import writable

pytestmark = pytest.mark.torch

TOKENIZERS = {kind: make_tokenizer(kind) for kind in ARCHITECTURES}
CHATS = {kind: Chat(tokenizer, "Be brief.") for kind, tokenizer in TOKENIZERS.items()}
SPECIAL = sorted({token for kind in KINDS.values() for token in kind.special})
kinds = st.sampled_from(ARCHITECTURES)
contents = st.one_of(
    writable,
    st.lists(st.sampled_from([*SPECIAL, "<|", "|>", "end", "\ue000", " ", "\n", "a"]), max_size=8).map(
        "".join
    ),
)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_ids_of_a_turn_are_those_of_the_bases_own_template(kind: str) -> None:
    chat, tokenizer = Chat(TOKENIZERS[kind], "Be brief."), TOKENIZERS[kind]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because."},
    ]
    own = tokenizer.apply_chat_template(
        messages[:2], add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    assert chat.prompt_ids("Why?") == own
    if kind == "llama":
        whole = tokenizer.apply_chat_template(messages, return_dict=False)
        ours = chat.prompt_ids("Why?") + chat.completion_ids("Because.")
        assert whole[: len(ours)] == ours


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("system", [None, "Be brief.", "<|bos|><s> as text"])
def test_bug_3_exactly_one_bos_where_the_base_uses_one(kind: str, system: str | None) -> None:
    """Bug 3: llama's template and tokenizer both add it, gpt_neox's tokenizer alone does, the others do not."""
    chat = Chat(TOKENIZERS[kind], system)
    bos = chat.tokenizer.bos_token_id
    for ids in (chat.prompt_ids("Why?"), chat.prompt_ids("<|bos|><s>Why?"), chat.text_ids("Prose.")):
        if kind in {"llama", "gpt_neox"}:
            assert ids[0] == bos
            assert ids.count(bos) == 1
        elif kind == "qwen2":
            assert bos is None
        else:
            assert ids[0] != bos


@given(kinds, contents)
@example("llama", "<|end|>")
@example("gpt2", "<|endoftext|>")
@example("llama", "a<|end<|end|>|>\r\n ")
def test_bug_5_a_completion_decodes_to_the_answer_exactly(kind: str, answer: str) -> None:
    """Bug 5, for any text: the span holds the answer and nothing of the prompt or the end token."""
    chat = CHATS[kind]
    ids = chat.completion_ids(answer)
    assert ids[-1] == chat.end_id
    assert not chat.stop_ids.intersection(ids[:-1])
    assert chat.decode(ids) == answer
    assert chat.exact(answer)


@given(kinds, contents)
def test_a_question_cannot_write_control_tokens(kind: str, question: str) -> None:
    chat = CHATS[kind]
    controls = [token for token in chat.prompt_ids("x") if token in chat.tokenizer.all_special_ids]
    ids = chat.prompt_ids(question)
    assert [token for token in ids if token in chat.tokenizer.all_special_ids] == controls
    shown = question.strip() if kind == "llama" else question  # that template trims
    assert shown in chat.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


@given(kinds, contents)
def test_prose_is_text_between_the_bases_own_marks(kind: str, prose: str) -> None:
    chat = CHATS[kind]
    ids = chat.text_ids(prose)
    assert ids[-1] == chat.tokenizer.eos_token_id
    assert chat.decode(ids) == prose


def test_the_end_of_turn_comes_from_the_template() -> None:
    ends = {kind: CHATS[kind].tokenizer.convert_ids_to_tokens(CHATS[kind].end_id) for kind in ARCHITECTURES}
    assert ends == {"llama": "<|end|>", "qwen2": "<|im_end|>", "gpt_neox": "</s>", "gpt2": "<|endoftext|>"}


def test_an_end_of_turn_that_is_not_the_end_of_text_stops_too() -> None:
    tokenizer = make_tokenizer("qwen2")
    tokenizer.eos_token = "<|endoftext|>"
    chat = Chat(tokenizer, extra_stop_ids=[7])
    im_end, end_of_text = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert chat.end_id == im_end
    assert chat.stop_ids == {im_end, end_of_text, 7}


def test_bug_4_pad_that_equals_eos_leaves_the_end_token_in_the_completion() -> None:
    """Bug 4: nothing here masks by token, so the end token is a label like any other."""
    chat = CHATS["gpt_neox"]
    assert chat.tokenizer.pad_token_id == chat.tokenizer.eos_token_id == chat.completion_ids("ok")[-1]


def test_a_template_without_system_role_gets_the_text_before_the_question() -> None:
    chat = CHATS["gpt_neox"]
    assert chat.tokenizer.decode(chat.prompt_ids("Why?")) == "<s>[INST] Be brief.\n\nWhy? [/INST]"
    assert any("no system role" in note for note in chat.notes)
    assert not Chat(TOKENIZERS["gpt_neox"]).notes


def test_a_template_that_drops_the_system_message_counts_as_without() -> None:
    template = LLAMA_TEMPLATE.replace(
        "{% for", "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}{% for", 1
    )
    chat = Chat(make_tokenizer("llama", template=template), "Be brief.")
    assert "Be brief.\n\nWhy?" in chat.tokenizer.decode(chat.prompt_ids("Why?"))


def test_a_base_without_a_template_gets_the_plain_one() -> None:
    chat = CHATS["gpt2"]
    assert chat.template == PLAIN_TEMPLATE
    assert chat.tokenizer.decode(chat.prompt_ids("Why?")) == "Be brief.\n\n### Question\nWhy?\n\n### Answer\n"
    assert any("no chat template" in note for note in chat.notes)


def test_thinking_is_off_and_said() -> None:
    chat = CHATS["qwen2"]
    assert chat.tokenizer.decode(chat.prompt_ids("Why?")).endswith("assistant\n<think>\n\n</think>\n\n")
    assert any("think" in note for note in chat.notes)


def test_a_template_that_reads_the_clock_gives_the_same_prompt_every_day() -> None:
    template = "{{ strftime_now('%d %b %Y') }} " + CHATML_TEMPLATE
    chat = Chat(make_tokenizer("qwen2", template=template))
    assert chat.tokenizer.decode(chat.prompt_ids("Why?")).startswith("26 Jul 2024 ")
    assert any("date" in note for note in chat.notes)


def test_a_blank_system_prompt_is_none() -> None:
    assert Chat(TOKENIZERS["llama"], " \n").prompt_ids("Why?") == Chat(TOKENIZERS["llama"]).prompt_ids("Why?")


def test_special_tokens_in_a_text_are_named() -> None:
    assert CHATS["llama"].special_tokens_in("say <|end|> and <|user|>, not <|im_end|>") == [
        "<|end|>",
        "<|user|>",
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['content' }}", "fails"),
        ("{{ raise_exception('no') }}", "no"),
        ("{{ missing.deeply.so }}", "fails"),
        ("hello", "does not show the question"),
    ],
)
def test_a_broken_template_is_refused(template: str, message: str) -> None:
    with pytest.raises(BaseModelError, match=message):
        Chat(make_tokenizer("llama", template=template))


def test_a_base_that_cannot_stop_is_refused() -> None:
    tokenizer = make_tokenizer("gpt2")
    tokenizer.eos_token = None
    with pytest.raises(BaseModelError, match="never learn to stop"):
        Chat(tokenizer)


def test_an_end_token_that_is_not_flagged_special_cannot_be_written_either() -> None:
    tokenizer = make_tokenizer(
        "llama", template="{% for m in messages %}{{ m['role'] + m['content'] + '[STOP]' }}{% endfor %}"
    )
    tokenizer.add_tokens(["[STOP]"])
    chat = Chat(tokenizer)
    stop = tokenizer.convert_tokens_to_ids("[STOP]")
    assert chat.end_id == stop
    assert chat.completion_ids("a [STOP] b").count(stop) == 1
    assert chat.decode(chat.completion_ids("a [STOP] b")) == "a [STOP] b"
    assert chat.prompt_ids("a [STOP] b").count(stop) == chat.prompt_ids("a").count(stop)
