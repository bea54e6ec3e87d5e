"""Faults between a document and the token ids that are trained on: bugs 2 to 5, and special tokens in texts."""

from __future__ import annotations

from tools.mutations.fault import Fault

__all__ = ["FAULTS"]

_SKIPPED = (
    "tests/training/test_phases.py::test_bug_2_rows_without_labels_are_listed_and_too_many_refuse_the_run"
)
_EMPTY = "tests/training/test_examples.py::test_bug_2_an_answer_without_tokens_is_listed"
_UNSAVED = "tests/training/test_loop.py::test_bug_2_weights_that_are_not_numbers_are_never_saved"
_NAMED = "tests/training/test_loop.py::test_bug_2_a_row_whose_loss_is_not_a_number_is_named_and_nothing_else"
_ONE_BOS = "tests/model/test_chat.py::test_bug_3_exactly_one_bos_where_the_base_uses_one"
_SERVED = "tests/training/test_phases.py::test_bug_3_and_bug_5_training_ids_are_serving_ids"
_STOPS = "tests/training/test_phases.py::test_bug_4_a_model_that_pads_with_its_end_token_learns_to_stop"
_END = "tests/model/test_chat.py::test_bug_4_pad_that_equals_eos_leaves_the_end_token_in_the_completion"
_EXACT = "tests/model/test_chat.py::test_bug_5_a_completion_decodes_to_the_answer_exactly"
_PREFLIGHT = "tests/training/test_phases.py::test_the_pre_flight_counts_what_there_is"

FAULTS = (
    Fault(
        2,
        "a run in which most rows do not fit is not refused",
        "training/prepared.py",
        "    if len(skipped) > MAX_SKIPPED_SHARE * of:",
        "    if False:",
        (_SKIPPED,),
    ),
    Fault(
        2,
        "rows that are too long are cut in silence",
        "training/examples.py",
        "        ids = (*prompt, *completion)\n",
        "        ids = (*prompt, *completion)[:max_len]\n",
        (_SKIPPED,),
    ),
    Fault(
        2,
        "an answer of nothing but the end token is trained on",
        "training/examples.py",
        "        if not row.text.strip() or len(completion) < 2:",
        "        if not completion:",
        (_EMPTY,),
    ),
    Fault(
        2,
        "weights are saved without a look at them",
        "training/loop.py",
        "        require_finite(self.model, progress.step)\n",
        "",
        (_UNSAVED,),
    ),
    Fault(
        2,
        "a step whose loss is NaN is taken",
        "training/loop.py",
        '        if not (math.isfinite(metrics["loss"]) and math.isfinite(grad_norm)):',
        "        if False:",
        (_NAMED,),
    ),
    Fault(
        3,
        "BOS is put before a prompt that has one",
        "model/chat.py",
        "        return [bos, *ids[count:]]",
        "        return [bos, *ids]",
        (_ONE_BOS,),
    ),
    Fault(
        3,
        "no BOS where the tokenizer, not the template, adds it",
        "model/chat.py",
        "        if count == 0 and not self._bos_habit:",
        "        if count == 0:",
        (_ONE_BOS,),
    ),
    Fault(
        3,
        "a pair's prompt is rendered otherwise than a question",
        "training/pairs.py",
        "prompts[pair.prompt] = tuple(chat.prompt_ids(pair.prompt))",
        'prompts[pair.prompt] = tuple(chat.prompt_ids(pair.prompt + " "))',
        (_SERVED,),
    ),
    Fault(
        4,
        "the end token is left out of supervised rows",
        "training/examples.py",
        "            examples.append(Example(row, ids, len(prompt)))",
        "            examples.append(Example(row, ids[:-1], len(prompt)))",
        (_STOPS,),
    ),
    Fault(
        4,
        "labels that equal the padding token are masked",
        "training/layout.py",
        "        states = self._states(model, batch, self.headless)[batch.places]  # (N, E), or (N, V)\n",
        "        from dataclasses import replace\n\n"
        "        keep = batch.targets != self.pad_id\n"
        "        kept = {name: getattr(batch, name)[keep] for name in ('places', 'targets', 'owner')}\n"
        "        batch = replace(batch, **kept)\n"
        "        states = self._states(model, batch, self.headless)[batch.places]\n",
        (_STOPS,),
    ),
    Fault(
        4,
        "a completion ends without its end token",
        "model/chat.py",
        "        return [*self._plain(answer), self.end_id]",
        "        return self._plain(answer)",
        (_END,),
    ),
    Fault(
        5,
        "white space at the start of an answer falls to the prompt",
        "training/examples.py",
        "        completion = chat.completion_ids(row.text)",
        "        completion = chat.completion_ids(row.text.lstrip())",
        (_SERVED,),
    ),
    Fault(
        5,
        "the trained span begins one token before the answer",
        "training/examples.py",
        "            examples.append(Example(row, ids, len(prompt)))",
        "            examples.append(Example(row, ids, len(prompt) - 1))",
        (_SERVED,),
    ),
    Fault(
        5,
        "an answer is tokenised with a space in front, as in the middle of a text",
        "model/chat.py",
        "        return [*self._plain(answer), self.end_id]",
        '        return [*self._plain(" " + answer), self.end_id]',
        (_EXACT,),
    ),
    Fault(
        None,
        "a special token written in an answer becomes a control token",
        "model/chat.py",
        "        ids: list[int] = self.tokenizer(\n"
        "            text, add_special_tokens=False, split_special_tokens=True, verbose=False\n",
        '        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]\n'
        "        ids: list[int] = self.tokenizer(\n"
        "            text, add_special_tokens=False, split_special_tokens=True, verbose=False\n",
        (_EXACT,),
    ),
    Fault(
        None,
        "special tokens written in rows are not listed before a run",
        "training/prepared.py",
        "for token in policy.chat.special_tokens_in(text)]",
        "for token in ()]",
        (_PREFLIGHT,),
    ),
    Fault(
        None,
        "the tokens counted before a run leave the prompts out",
        "training/sft.py",
        '            "whole": Spread.of(len(example.ids) for example in train.examples),',
        '            "whole": Spread.of(example.n_targets for example in train.examples),',
        (_PREFLIGHT,),
    ),
)
