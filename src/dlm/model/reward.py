"""Reward models: a base, an adapter and a head of one output, which gives a score to an answer.

The score is read from the trunk's state at the answer's last token, the one that ends it. transformers finds that place
by looking for the last token that is not padding, so padding must be a token that never ends an answer: where the base
pads with its end token, another is chosen and saved.

Notation: B answers, T tokens of the longest with its prompt, E hidden width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from dlm.bases import BaseSpec, resolve_base
from dlm.errors import BaseModelError, ContextLengthError
from dlm.model.chat import Chat
from dlm.model.head import inner_model, trunk_states
from dlm.model.policy import Policy, load_adapter, load_folder, load_policy, quiet_libraries
from dlm.model.source import inspect_folder, read_json, readable_faults

__all__ = [
    "REWARD_FILE",
    "RewardModel",
    "choose_pad_id",
    "inspect_reward_model",
    "load_reward_model",
    "with_score_head",
    "write_reward_facts",
]

REWARD_FILE = "reward.json"
_BATCH_POSITIONS = 8192


def with_score_head(policy: Policy) -> Any:
    """The policy's trunk under a scoring head of zeros, as transformers' sequence classifier with one label.

    The trunk is the policy's own, not a copy: no weight is held twice, and what is done to one shows in the other.

    Raises:
        BaseModelError: transformers has no such classifier for this architecture.
    """
    causal = inner_model(policy.model)
    config = causal.config
    config.num_labels = 1
    config.get_text_config().pad_token_id = choose_pad_id(policy)
    with readable_faults(f"{policy.spec.name} cannot become a reward model"), torch.device("meta"):
        classifier = transformers.AutoModelForSequenceClassification.from_config(config)
    if not isinstance(getattr(classifier, "score", None), torch.nn.Linear):
        raise BaseModelError(
            f"{policy.spec.name} cannot become a reward model: transformers gives its architecture no scoring head",
            next_step="train the reward model on another base",
        )
    trunk = causal.base_model
    weight = causal.get_input_embeddings().weight
    setattr(classifier, classifier.base_model_prefix, trunk)
    classifier.config = trunk.config  # the layers read their settings from this very object
    classifier.score = torch.nn.Linear(
        classifier.score.in_features, 1, bias=False, device=weight.device, dtype=weight.dtype
    )
    torch.nn.init.zeros_(classifier.score.weight)
    return classifier.requires_grad_(False).eval()


def choose_pad_id(policy: Policy) -> int:
    """A token to pad with that never ends an answer.

    The base's own where it is one; else another of its special tokens; else the word that is least likely to be written
    the way the vocabulary spells it, since a padding token is matched in raw text.
    """
    tokenizer, end = policy.tokenizer, policy.chat.end_id
    special = [
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
        *sorted(id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special),
    ]
    found = next((id_ for id_ in special if id_ is not None and id_ != end), None)
    if found is not None:
        return int(found)
    # byte-level spelling writes a leading space as Ġ, SentencePiece as ▁: long words spelt so stand in no text
    words: dict[int, str] = {id_: text for text, id_ in tokenizer.get_vocab().items() if id_ != end}
    return max(words, key=lambda id_: (words[id_][0] in "Ġ▁", len(words[id_]), -id_))


def write_reward_facts(folder: Path, system_prompt: str | None) -> None:
    """Say beside a reward model's weights what stood before every question when it was trained."""
    facts = {"format": 1, "system_prompt": system_prompt}
    (folder / REWARD_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class RewardModel:
    """A reward model, ready to score.

    Attributes:
        model: the sequence classifier, a PeftModel around it where the weights are not merged.
        chat: renders prompts and answers as they were in training.
        pad_id: see `choose_pad_id`.
        context_length: prompt and answer together, in tokens.
        adapter: the adapter's folder, None where the weights are merged.
        whole_conversation: it was trained elsewhere, so it reads what its own template makes of a conversation, to the
            end; one of ours is read at the token that ends the answer.
    """

    name: str
    model: Any
    tokenizer: Any
    chat: Chat
    pad_id: int
    device: str
    context_length: int
    adapter: Path | None
    whole_conversation: bool = False

    def scores(self, answers: Sequence[tuple[str, str]]) -> list[float]:
        """The score of each (prompt, answer), in order; the higher the better, and only differences mean anything.

        Raises:
            ContextLengthError: a prompt and its answer are longer than the model can read.
        """
        rows = [self._ids(prompt, answer) for prompt, answer in answers]
        for (prompt, _), row in zip(answers, rows, strict=True):
            if len(row) > self.context_length:
                raise ContextLengthError(
                    f"a prompt and its answer are too long for {self.name}",
                    expected=f"at most {self.context_length:,} tokens",
                    found=f"{len(row):,} tokens, of the prompt that begins {prompt[:40]!r}",
                    next_step="score shorter answers",
                )
        found = [0.0] * len(rows)
        for places in _batches(rows):
            for place, value in zip(places, self._score([rows[i] for i in places]).tolist(), strict=True):
                found[place] = value
        return found

    def _ids(self, prompt: str, answer: str) -> list[int]:
        if self.whole_conversation:
            return self.chat.conversation_ids(prompt, answer)
        return [*self.chat.prompt_ids(prompt), *self.chat.completion_ids(answer)]

    def _score(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """(B,) fp32."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.pad_id] * (width - len(row))] for row in rows])  # (B, T)
        ends = torch.tensor([len(row) - 1 for row in rows])
        mask = (torch.arange(width) <= ends[:, None]).long()
        self.model.eval()
        with torch.no_grad():
            states = trunk_states(
                self.model, input_ids=ids.to(self.device), attention_mask=mask.to(self.device)
            )
            last = states[torch.arange(len(rows)), ends]  # (B, E)
            # fp32 whatever the weights' type: bf16 would round scores to 8 bits
            values: Tensor = inner_model(self.model).score(last.float()).squeeze(1)
        return values

    def save_merged(self, folder: Path) -> None:
        """Write a complete model that stock transformers loads as a sequence classifier; this one is used up.

        Tokenizer and configuration pad with the same token, so that transformers reads the score where dlm does.
        """
        whole = self.model.merge_and_unload() if self.adapter is not None else self.model
        whole.score.to(whole.get_input_embeddings().weight.dtype)
        with quiet_libraries():
            whole.save_pretrained(str(folder))
            self.save_tokenizer(folder)
        for weights in folder.glob("*.safetensors"):  # safetensors makes its files private
            weights.chmod((folder / "config.json").stat().st_mode & 0o777)
        write_reward_facts(folder, self.chat.system_prompt)

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer with the chat template in use and the padding of this model."""
        self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(self.pad_id)
        self.tokenizer.chat_template = self.chat.template
        self.tokenizer.save_pretrained(str(folder))


def inspect_reward_model(folder: Path) -> None:
    """Check everything about the reward model in a folder that can be checked without loading it or its base.

    Raises:
        BaseModelError: the folder holds none, or files are missing, damaged or of another kind.
    """
    if (folder / "adapter_config.json").is_file():
        _require_scorer(folder)
    elif (folder / "config.json").is_file():
        inspect_folder(folder, str(folder), scores=True)
    else:
        raise BaseModelError(
            f"{folder} holds no reward model",
            expected="an adapter (adapter_config.json) or a whole model (config.json) that scores answers",
            next_step="dlm train DOCUMENT --phase reward makes one, dlm export DOCUMENT --version NAME --to DIR writes it",
        )


def load_reward_model(
    folder: Path, spec: BaseSpec | None = None, *, device: str = "auto", precision: str | None = None
) -> RewardModel:
    """Load what the reward phase made: a version's folder, an exported adapter, or a merged model.

    Args:
        folder: an adapter with its `reward.json`, or a complete sequence classifier with one label.
        spec: the base of an adapter; without it, the one that its `version.json` names.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: fp32, bf16 or fp16 for the base's weights; None chooses. The head is fp32 in any case.

    Raises:
        BaseModelError: the folder holds no reward model, its base is not known, or files are damaged.
        UsageError: the machine cannot do what `device` or `precision` ask.
    """
    if (folder / "adapter_config.json").is_file():
        return _load_adapted(folder, spec, device, precision)
    facts = read_json(folder / REWARD_FILE) if (folder / REWARD_FILE).is_file() else {}
    whole = BaseSpec(str(folder), "folder", str(folder), {}, "")
    policy = load_folder(
        whole,
        folder,
        device=device,
        precision=precision,
        system_prompt=facts.get("system_prompt"),
        scores=True,
    )
    pad_id = policy.model.config.get_text_config().pad_token_id
    return _ready(
        policy,
        policy.model,
        choose_pad_id(policy) if pad_id is None else int(pad_id),
        whole_conversation=not facts and bool(policy.tokenizer.chat_template),
    )


def _require_scorer(folder: Path) -> None:
    if read_json(folder / "adapter_config.json").get("task_type") != "SEQ_CLS":
        raise BaseModelError(
            f"{folder} holds an adapter that writes answers, not one that scores them",
            expected="task_type SEQ_CLS in adapter_config.json",
            next_step="name a version of a reward run: dlm train DOCUMENT --phase reward makes one",
        )


def _load_adapted(folder: Path, spec: BaseSpec | None, device: str, precision: str | None) -> RewardModel:
    _require_scorer(folder)
    facts = read_json(folder / REWARD_FILE)
    policy = load_policy(
        spec or _base_of(folder),
        device=device,
        precision=precision,
        system_prompt=facts.get("system_prompt"),
    )
    classifier = with_score_head(policy)
    pad_id = classifier.config.get_text_config().pad_token_id
    model = load_adapter(classifier, folder, policy.fingerprint, policy.spec.name, trainable=False)
    model.to(policy.device.value)
    return _ready(policy, model, pad_id, folder)


def _ready(
    policy: Policy, model: Any, pad_id: int, adapter: Path | None = None, *, whole_conversation: bool = False
) -> RewardModel:
    inner_model(model).score.float()
    return RewardModel(
        name=policy.spec.name if adapter is None else adapter.name,
        model=model.eval(),
        tokenizer=policy.tokenizer,
        chat=policy.chat,
        pad_id=pad_id,
        device=policy.device.value,
        context_length=policy.context_length,
        adapter=adapter,
        whole_conversation=whole_conversation,
    )


def _base_of(folder: Path) -> BaseSpec:
    """The base that a version names; one in a folder beside some document must be given by the caller."""
    if (folder / "base" / "config.json").is_file():  # an export of the embedded base brings it along
        return BaseSpec("./base", "folder", str(folder / "base"), {}, "")
    record = folder / "version.json"
    name = str(read_json(record).get("base", "")) if record.is_file() else ""
    if not name or name.startswith("."):
        raise BaseModelError(
            f"the reward model {folder.name} was trained on {name or 'a base it does not name'}, and from here that is "
            "no place",
            expected="its base beside it, or a merged export",
            next_step="dlm export DOCUMENT --merged --to DIR makes a folder that stands alone",
        )
    return resolve_base(name)


def _batches(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Places of rows, longest first, in batches of bounded padded size."""
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
    while order:
        count = max(1, _BATCH_POSITIONS // len(rows[order[0]]))
        yield order[:count]
        order = order[count:]
