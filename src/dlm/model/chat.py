"""The one renderer of chat text: what training, sampling, judging and evaluation feed to a model.

A prompt is the base's own chat template with the generation prompt; a completion is the answer's ids, tokenised on
their own, and the end-of-turn token. Training joins the two and serving starts from the first, so that the ids of
both are the same by construction, no token spans the boundary, and the trained span decodes to the answer exactly.

Text from a document never becomes a control token: special tokens written in a question, an answer or a system
prompt are encoded as the characters they are made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2

from dlm.errors import BaseModelError

__all__ = ["PLAIN_TEMPLATE", "Chat"]

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content + '\n\n' }}"
    "{% elif message.role == 'user' %}{{ '### Question\n' + message.content + '\n\n' }}"
    "{% else %}{{ '### Answer\n' + message.content + (eos_token or '') + '\n\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Answer\n' }}{% endif %}"
)
"""For bases that bring no chat template; answers begin on a line of their own, so no token joins them to the prompt."""

_QUESTION, _ANSWER, _SYSTEM = "dlmquestionmark", "dlmanswermark", "dlmsystemmark"
_FIXED_CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    " | replace('%d', '26') | replace('%b', 'Jul') | replace('%B', 'July') | replace('%m', '07')"
    " | replace('%Y', '2024') | replace('%y', '24') | replace('%A', 'Friday') | replace('%a', 'Fri')"
    " | replace('%H', '12') | replace('%M', '00') | replace('%S', '00') }}{% endmacro %}"
)
"""Put before templates that read the clock, so that a prompt is the same tomorrow. 26 July 2024 is the day that
Llama 3's template falls back on."""


class Chat:
    """Renders questions, answers and prose of one document for one base.

    Attributes:
        template: the Jinja chat template in use (the base's own, or `PLAIN_TEMPLATE`).
        system_prompt: the document's system prompt, or None.
        end_id: the token that ends an answer.
        stop_ids: every token at which sampling stops.
        notes: what is unusual about this base's template, in words for the user.
    """

    def __init__(
        self, tokenizer: Any, system_prompt: str | None = None, *, extra_stop_ids: Iterable[int] = ()
    ) -> None:
        """Read the tokenizer's template and find out its habits.

        Args:
            tokenizer: a transformers tokenizer.
            system_prompt: put before every question; blank counts as none.
            extra_stop_ids: further end tokens, as the base's generation configuration lists them.

        Raises:
            BaseModelError: the template fails, loses the question, or the base has no token to end an answer with.
        """
        self.tokenizer = tokenizer
        self.system_prompt = system_prompt if system_prompt and system_prompt.strip() else None
        notes: list[str] = []
        self.template = self._find_template(notes)
        self._program = self.template
        if "strftime_now" in self.template:
            self._program = _FIXED_CLOCK + self.template
            notes.append(
                "the template shows the date: it is fixed, so that prompts stay as they were trained"
            )
        self._tokens = self._special_tokens()
        self._system_role = True
        self._check_question()
        if self.system_prompt is not None:
            self._system_role = self._has_system_role()
            if not self._system_role:
                notes.append("the template has no system role: the system prompt stands before the question")
        if "enable_thinking" in self.template:
            notes.append("the base can think aloud before it answers: that is switched off")
        self.end_id = self._find_end()
        eos = tokenizer.eos_token_id
        self.stop_ids = frozenset({self.end_id, *extra_stop_ids} | ({eos} if eos is not None else set()))
        for token in self.stop_ids:
            text = tokenizer.convert_ids_to_tokens(token)
            if text is not None:
                self._tokens.setdefault(
                    text, token
                )  # some tokenizers do not flag their end-of-turn as special
        self._bos_habit = self._adds_bos()
        self.notes = tuple(notes)

    # --- what the rooms above call ---------------------------------------------------------------------------

    def prompt_ids(self, question: str) -> list[int]:
        """The ids a model answers from: template, system prompt, question, generation prompt; exactly one BOS where
        the base uses one."""
        return self._one_bos(self._rendered_ids(question, None))

    def conversation_ids(self, question: str, answer: str) -> list[int]:
        """The ids of a question and its answer as the template writes them once both are said, to the last token that
        it puts after an answer: what transformers' apply_chat_template gives, so with a BOS only where the template has
        one. For reward models of others, which read whole conversations."""
        return self._rendered_ids(question, answer)

    def completion_ids(self, answer: str) -> list[int]:
        """The ids of an answer, tokenised apart from any prompt, and the end-of-turn token."""
        return [*self._plain(answer), self.end_id]

    def text_ids(self, prose: str) -> list[int]:
        """The ids of running text: BOS where the base uses one, the text, and the end-of-text token."""
        eos = self.tokenizer.eos_token_id
        return self._one_bos([*self._plain(prose), self.end_id if eos is None else eos])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, without special and stop tokens, otherwise character for character."""
        kept = [token for token in ids if token not in self.stop_ids]
        # clean_up_tokenization_spaces would eat spaces before punctuation
        text: str = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def special_tokens_in(self, text: str) -> list[str]:
        """The base's control tokens that occur in a text, in order of the vocabulary (they are encoded as text)."""
        return [token for token in self._tokens if token in text]

    def exact(self, text: str) -> bool:
        """Whether the base's tokenizer can hold this text: its ids decode to the very same characters."""
        return self.decode(self._plain(text)) == text

    # --- rendering -------------------------------------------------------------------------------------------

    def _rendered_ids(self, question: str, answer: str | None) -> list[int]:
        """The ids of the template's text: up to where an answer begins, or, with an answer, to the end."""
        content = "\n".join((self.system_prompt or "", question, answer or ""))
        if not self.special_tokens_in(content):
            # exactly what transformers' own apply_chat_template would give
            return self._encode(self._render(self._messages(question, answer), generation=answer is None))
        marks = _Marks.unused_in(content, self._tokens)
        text = self._render(self._messages(question, answer, marks), generation=answer is None)
        ids: list[int] = []
        for piece, token in marks.split(text):
            ids += self._encode(piece) if token is None else self._plain(token)
        return ids

    def _messages(
        self, question: str, answer: str | None, marks: _Marks | None = None
    ) -> list[dict[str, str]]:
        def put(text: str) -> str:
            return text if marks is None else marks.put(text)

        system = None if self.system_prompt is None else put(self.system_prompt)
        messages = self._compose(put(question), system)
        return messages if answer is None else [*messages, {"role": "assistant", "content": put(answer)}]

    def _compose(self, question: str, system: str | None) -> list[dict[str, str]]:
        if system is None:
            return [{"role": "user", "content": question}]
        if not self._system_role:
            return [{"role": "user", "content": f"{system}\n\n{question}"}]
        return [{"role": "system", "content": system}, {"role": "user", "content": question}]

    def _render(self, messages: list[dict[str, str]], *, generation: bool = True) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self._program,
                add_generation_prompt=generation,
                tokenize=False,
                enable_thinking=False,
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError) as error:
            # a template is a program of the base's maker: these are what its faults turn into
            raise BaseModelError(
                f"the base's chat template fails: {error}",
                next_step="mend chat_template in the base's folder, or name another base",
            ) from None
        return text

    def _encode(self, text: str) -> list[int]:
        """Ids of rendered text: special tokens count, and none is added."""
        if not text:
            return []
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _plain(self, text: str) -> list[int]:
        """Ids of text from a document: special tokens in it are spelt out."""
        if not text:
            return []
        ids: list[int] = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        spelt = (
            name for name, token in self._tokens.items() if token in ids and len(name) > 1 and name in text
        )
        found = next(spelt, None)
        if found is None:
            return ids
        # the tokenizer insists on this token: cut the text inside it, so that it cannot be seen as a whole
        cut = text.index(found) + 1
        return self._plain(text[:cut]) + self._plain(text[cut:])

    def _one_bos(self, ids: list[int]) -> list[int]:
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return ids
        count = next((index for index, token in enumerate(ids) if token != bos), len(ids))
        if count == 0 and not self._bos_habit:
            return ids
        return [bos, *ids[count:]]

    # --- habits of the base ----------------------------------------------------------------------------------

    def _find_template(self, notes: list[str]) -> str:
        if not self.tokenizer.chat_template:
            notes.append("the base has no chat template: dlm's plain one is used (### Question, ### Answer)")
            return PLAIN_TEMPLATE
        try:
            template: str = self.tokenizer.get_chat_template()
        except ValueError as error:
            raise BaseModelError(
                f"the base's chat templates name no default: {error}", next_step="name another base"
            ) from None
        return template

    def _special_tokens(self) -> dict[str, int]:
        tokens = {
            token.content: id_ for id_, token in self.tokenizer.added_tokens_decoder.items() if token.special
        }
        for text in self.tokenizer.all_special_tokens:
            tokens.setdefault(text, self.tokenizer.convert_tokens_to_ids(text))
        return tokens

    def _check_question(self) -> None:
        if _QUESTION not in self._render([{"role": "user", "content": _QUESTION}]):
            raise BaseModelError(
                "the base's chat template does not show the question",
                next_step="mend chat_template in the base's folder, or name another base",
            )

    def _has_system_role(self) -> bool:
        try:
            text = self._render(self._compose(_QUESTION, _SYSTEM))
        except BaseModelError:
            return False  # such templates raise "system role not supported"
        return _SYSTEM in text and _QUESTION in text

    def _find_end(self) -> int:
        """The first special token that the template puts after an assistant's words; else the end-of-text token."""
        turn = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
        after = self._render(turn, generation=False).partition(_ANSWER)[2]
        eos = self.tokenizer.eos_token_id
        added = set(self.tokenizer.added_tokens_decoder) | {eos}
        end = next((token for token in self._encode(after) if token in added), eos)
        if end is None:
            raise BaseModelError(
                "the base has no token that ends an answer, so it could never learn to stop",
                expected="an eos_token, or a special token after the assistant's turn in the chat template",
                next_step="name another base",
            )
        return int(end)

    def _adds_bos(self) -> bool:
        """Whether the template or the tokenizer starts a text with BOS."""
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return False
        by_template = self._encode(self._render([{"role": "user", "content": _QUESTION}]))[:1] == [bos]
        return by_template or self.tokenizer("a", verbose=False)["input_ids"][:1] == [bos]


class _Marks:
    """Stand-ins for special tokens inside document text while a template is rendered around it."""

    def __init__(self, tokens: Sequence[str], left: str, right: str) -> None:
        self._tokens = sorted(tokens, key=len, reverse=True)  # a longer token wins over one it contains
        self._left, self._right = left, right
        self._find = re.compile("|".join(map(re.escape, self._tokens)))
        self._split = re.compile(f"{left}(\\d+){right}")

    @classmethod
    def unused_in(cls, text: str, tokens: Iterable[str]) -> _Marks:
        """Marks made of two private-use characters that the text does not have."""
        free = (chr(code) for code in range(0xF0000, 0xFFFFE) if chr(code) not in text)
        return cls(list(tokens), next(free), next(free))

    def put(self, text: str) -> str:
        """The text with every special token replaced by its mark."""
        return self._find.sub(lambda match: f"{self._left}{self._tokens.index(match[0])}{self._right}", text)

    def split(self, text: str) -> list[tuple[str, str | None]]:
        """The rendered text as (piece, None) and (mark, special token) in order."""
        parts = self._split.split(text)
        return [(part, self._tokens[int(part)] if index % 2 else None) for index, part in enumerate(parts)]
