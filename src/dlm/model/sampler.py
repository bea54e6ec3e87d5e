"""Sampling answers: many prompts and seeds at once, each row's text its own.

Equal prompts are read once and their cache is repeated for every sample; rows are batched by length; a row that is
done leaves the batch, so the cost follows the rows that still write.

Notation: B live rows, U different prompts of a batch, L cached positions, V vocabulary, T temperature.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from dlm.errors import NonFiniteError, UsageError
from dlm.model.cache import make_cache, select_rows
from dlm.model.decoding import fast_decoding
from dlm.model.noise import exponential, row_keys
from dlm.model.policy import Policy
from dlm.model.streaming import TextStream, find_stop

__all__ = ["Sample", "Settings", "keeps_logits", "sample", "stream"]

FinishReason = Literal["stop", "length"]

_CACHE_BYTES = 1 << 30  # key-value cache of one batch at its longest
_LOGIT_BYTES = 1 << 29  # logits and what sampling derives from them, for one step
_LOGIT_COPIES = 8  # arrays of (B, V) that live at once
_PREFILL_TOKENS = 16_384  # prompt tokens read in one pass
_FEW_ROWS = 8  # below, a product takes its time from reading the weights, whoever multiplies
_STRIDE = 8  # rows by which a large batch shrinks
_MOST_ROWS = 256  # beyond this a CPU gains nothing


@dataclass(frozen=True)
class Settings:
    """How to sample. The defaults draw from the model's own distribution.

    Attributes:
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_p: keep the likeliest tokens that together reach this probability; 1 keeps all.
        top_k: keep this many likeliest tokens; 0 keeps all.
        repetition_penalty: above 1, tokens of prompt and answer become less likely (arXiv 1909.05858).
        max_new_tokens: the answer's length at most, in tokens, the stop token included.
        stop: the answer ends before the first of these texts.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        faults = [
            (not 0 <= self.temperature < math.inf, "temperature", "0 or more", self.temperature),
            (not 0 < self.top_p <= 1, "top_p", "above 0, at most 1", self.top_p),
            (self.top_k < 0, "top_k", "0 (all) or more", self.top_k),
            (
                not 0 < self.repetition_penalty < math.inf,
                "repetition_penalty",
                "above 0",
                self.repetition_penalty,
            ),
            (self.max_new_tokens < 1, "max_new_tokens", "1 or more", self.max_new_tokens),
            ("" in self.stop, "stop", "texts that are not empty", self.stop),
        ]
        for wrong, name, expected, found in faults:
            if wrong:
                raise UsageError(f"{name} is out of range", expected=expected, found=repr(found))


@dataclass(frozen=True)
class Sample:
    """One answer.

    Attributes:
        ids: the tokens as sampled, the stop token included where one ended the answer.
        text: their text, without special tokens and without the `stop` text that ended it.
        finish_reason: "stop" by a stop token or text; "length" by max_new_tokens or the context's end.
        logprobs: log-probability of each token of `ids` under softmax(logits / T) over the whole vocabulary, in
            fp32, before penalty, top_k and top_p; at T = 0 it is that of T = 1.
    """

    ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    logprobs: tuple[float, ...]


def sample(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    settings: Settings,
    seeds: Sequence[int],
    *,
    on_finish: Callable[[int, Sample], None] | None = None,
) -> list[Sample]:
    """Sample one answer per row; rows with equal prompts share the reading of it.

    A row's text depends on its prompt, seed and settings, not on the rows beside it (in fp32, up to rounding in the
    last bit of the logits).

    Args:
        policy: what answers.
        prompts: token ids, from `policy.chat.prompt_ids`.
        settings: common to all rows.
        seeds: one per prompt; any integers of 64 bits.
        on_finish: told each row's index and answer as it is done, in no fixed order.

    Raises:
        ContextLengthError: a prompt leaves no room for an answer.
        UsageError: as many seeds as prompts are needed; a prompt is empty.
        NonFiniteError: the model's logits are not numbers.
    """
    if len(prompts) != len(seeds):
        raise UsageError("each prompt needs a seed", expected=f"{len(prompts)} seeds", found=str(len(seeds)))
    rows = [
        _make_row(policy, index, prompt, settings, seed)
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
    ]
    done: dict[int, Sample] = {}
    many = len(rows) >= _FEW_ROWS
    faster = fast_decoding(policy.model, policy.device.value) if many else nullcontext(False)
    with _evaluating(policy.model), faster as whole:
        for batch in _batches(policy.model, rows):
            for finished in _run(policy, batch, settings, whole):
                for row in finished:
                    if row.finish is None:
                        continue
                    done[row.index] = row.sample(policy, settings)
                    if on_finish is not None:
                        on_finish(row.index, done[row.index])
    return [done[index] for index in range(len(rows))]


def stream(
    policy: Policy, prompt_ids: Sequence[int], settings: Settings, seed: int
) -> Iterator[str | Sample]:
    """Sample one answer and yield its text in pieces of whole characters, then the finished `Sample`.

    The pieces joined are the sample's text, which is the text that `sample` gives for this prompt and seed.

    Raises:
        As `sample`.
    """
    row = _make_row(policy, 0, prompt_ids, settings, seed)
    text = TextStream(policy.chat.decode, settings.stop)
    with _evaluating(policy.model):
        for _ in _run(policy, [row], settings, False):
            if row.finish is None and (piece := text.push(row.ids[-1])):
                yield piece
    result = row.sample(policy, settings)
    if rest := text.rest(result.text):
        yield rest
    yield result


# --- rows and batches --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Row:
    index: int
    prompt: tuple[int, ...]
    seed: int
    budget: int  # tokens this row may still get at the start
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: FinishReason | None = None

    def take(self, token: int, logprob: float, policy: Policy, settings: Settings) -> None:
        self.ids.append(token)
        self.logprobs.append(logprob)
        if token in policy.chat.stop_ids or find_stop(self.ids, policy.chat.decode, settings.stop):
            self.finish = "stop"
        elif len(self.ids) >= self.budget:
            self.finish = "length"

    def sample(self, policy: Policy, settings: Settings) -> Sample:
        text = policy.chat.decode(self.ids)
        cut = min((at for stop in settings.stop if (at := text.find(stop)) >= 0), default=len(text))
        return Sample(tuple(self.ids), text[:cut], self.finish or "length", tuple(self.logprobs))


def _make_row(policy: Policy, index: int, prompt: Sequence[int], settings: Settings, seed: int) -> _Row:
    if not prompt:
        raise UsageError("an empty prompt has nothing to continue")
    room = policy.require_room(len(prompt))
    return _Row(index, tuple(prompt), seed, min(settings.max_new_tokens, room))


def _batches(model: Any, rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Rows in batches of like length, longest first (so that memory runs out at once or never), equal prompts together."""
    per_position = _cache_bytes_per_position(model)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    most_rows = max(1, min(_MOST_ROWS, _LOGIT_BYTES // (4 * _LOGIT_COPIES * vocabulary)))
    batch: list[_Row] = []
    prompts: set[tuple[int, ...]] = set()
    length = prompt_length = 0
    for row in sorted(rows, key=lambda row: (-len(row.prompt), row.prompt)):
        new_length = max(length, len(row.prompt) + row.budget)
        new_prompts = len(prompts) + (row.prompt not in prompts)
        prompt_length = max(prompt_length, len(row.prompt))
        full = (
            len(batch) >= most_rows
            or (len(batch) + 1) * new_length * per_position > _CACHE_BYTES
            or new_prompts * prompt_length > _PREFILL_TOKENS
        )
        if batch and full:
            yield batch
            batch, prompts, prompt_length = [], set(), len(row.prompt)
            new_length = len(row.prompt) + row.budget
        batch.append(row)
        prompts.add(row.prompt)
        length = new_length
    if batch:
        yield batch


def _cache_bytes_per_position(model: Any) -> int:
    config = model.config.get_text_config()
    heads = _largest(config.num_attention_heads)
    width = _largest(getattr(config, "head_dim", None) or _largest(config.hidden_size) // heads)
    key_heads = _largest(getattr(config, "num_key_value_heads", None) or heads)
    return int(2 * config.num_hidden_layers * key_heads * width * model.dtype.itemsize)


def _largest(size: int | Sequence[int]) -> int:
    """A size that some architectures state layer by layer."""
    return size if isinstance(size, int) else max(size)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Dropout off for the while; modules that were training train again afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


# --- the loop ----------------------------------------------------------------------------------------------------


def _run(policy: Policy, rows: list[_Row], settings: Settings, whole: bool) -> Iterator[list[_Row]]:
    """Sample one batch; after every step, the rows that took a token. `whole` as in `make_cache`."""
    state = _State(policy, rows, settings, whole)
    batch = rows
    step = 0
    while any(row.finish is None for row in batch):
        tokens, logprobs = state.choose(batch, step)
        live = [row for row in batch if row.finish is None]
        for row, token, logprob in zip(batch, tokens, logprobs, strict=True):
            if row.finish is not None:
                continue
            if not math.isfinite(logprob):
                raise NonFiniteError(
                    "the model's scores are not finite numbers, so nothing can be sampled",
                    found=f"log-probability {logprob} at token {len(row.ids) + 1} of an answer",
                    next_step="use another version: dlm prompt DOCUMENT --version NAME, or train again",
                )
            row.take(token, logprob, policy, settings)
        yield live
        kept = _kept(batch)
        if len(kept) < len(batch):
            state.keep(kept)
            tokens = [tokens[place] for place in kept]
            batch = [batch[place] for place in kept]
        if any(row.finish is None for row in batch):
            state.advance(tokens)
        step += 1


def _kept(batch: Sequence[_Row]) -> list[int]:
    """The places of the rows to go on with: those that still write, and in a large batch a few that are done.

    So a large batch shrinks in strides, and the libraries need kernels for few sizes.
    """
    writing = [place for place, row in enumerate(batch) if row.finish is None]
    size = len(writing) if len(writing) <= 4 * _STRIDE else math.ceil(len(writing) / _STRIDE) * _STRIDE
    done = (place for place, row in enumerate(batch) if row.finish is not None)
    return sorted([*writing, *itertools.islice(done, size - len(writing))])


class _State:
    """The tensors of a running batch: cache, mask, positions, and the logits of the next token."""

    def __init__(self, policy: Policy, rows: list[_Row], settings: Settings, whole: bool) -> None:
        self._model = policy.model
        self._device = policy.model.get_input_embeddings().weight.device
        self._settings = settings
        self._last_only = keeps_logits(policy.model)
        self._cache = make_cache(policy.model.config, whole=whole)
        prompts = list(dict.fromkeys(row.prompt for row in rows))
        self._read(prompts)
        of = {prompt: place for place, prompt in enumerate(prompts)}
        self._seen: torch.Tensor | None = None
        if settings.repetition_penalty != 1:
            self._seen = torch.zeros_like(self._logits, dtype=torch.bool)  # (U, V)
            for place, prompt in enumerate(prompts):
                self._seen[place, list(set(prompt))] = True
        if len(prompts) < len(rows):
            self.keep([of[row.prompt] for row in rows])

    def _read(self, prompts: list[tuple[int, ...]]) -> None:
        """Encode each different prompt once, padded on the left."""
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])  # (U, L)
        mask = torch.tensor(
            [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        )  # (U, L)
        self._mask = mask.to(self._device)
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        self._next_position = positions[:, -1:] + 1  # (U, 1)
        self._forward(ids.to(self._device), positions)

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> None:
        extra = {"logits_to_keep": 1} if self._last_only else {}
        with torch.no_grad():
            output = self._model(
                input_ids=ids,
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                **extra,
            )
        self._logits = output.logits[:, -1].float()  # (B, V)

    def advance(self, tokens: list[int]) -> None:
        """Feed each live row's newest token."""
        ids = torch.tensor(tokens, device=self._device).unsqueeze(1)  # (B, 1)
        if self._seen is not None:
            self._seen.scatter_(1, ids, True)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        self._forward(ids, self._next_position)
        self._next_position = self._next_position + 1

    def keep(self, places: list[int]) -> None:
        """Keep these rows; a place named twice is doubled."""
        if not places:
            return
        index = torch.tensor(places, device=self._device)
        select_rows(self._cache, index)
        self._mask, self._next_position = self._mask[index], self._next_position[index]
        self._logits = self._logits[index]
        if self._seen is not None:
            self._seen = self._seen[index]

    def choose(self, rows: list[_Row], step: int) -> tuple[list[int], list[float]]:
        """The next token of each row and its log-probability."""
        settings = self._settings
        scaled = (
            self._logits if settings.temperature in (0, 1) else self._logits / settings.temperature
        )  # (B, V)
        greatest = scaled.amax(1, keepdim=True)
        weights = (scaled - greatest).exp_()  # (B, V), in proportion to the probabilities
        normaliser = greatest.squeeze(1) + weights.sum(1).log()  # (B,)
        if self._seen is not None:
            raw = self._logits
            damped = torch.where(
                raw < 0, raw * settings.repetition_penalty, raw / settings.repetition_penalty
            )
            scores = torch.where(self._seen, damped, raw) / (settings.temperature or 1.0)
            weights = (scores - scores.amax(1, keepdim=True)).exp_()
        if settings.temperature > 0:
            # The argmax of log p + Gumbel noise is that of p over exponential noise, without a logarithm.
            weights = _keep_likely(weights, settings.top_k, settings.top_p)
            keys = torch.from_numpy(row_keys([row.seed for row in rows], step)).to(self._device)
            weights = weights / exponential(keys, weights.shape[1])
        chosen = _argmax(weights)
        logprobs = scaled.gather(1, chosen.unsqueeze(1)).squeeze(1) - normaliser
        return chosen.tolist(), logprobs.tolist()


def _keep_likely(weights: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Weights (B, V) with 0 outside the top_k likeliest, then outside the smallest set that reaches top_p of the rest.

    Tokens as likely as the last one that is kept are kept, too.
    """
    if 0 < top_k < weights.shape[1]:
        least = weights.topk(top_k, dim=1).values[:, -1:]
        weights = weights.masked_fill(weights < least, 0)
    if top_p < 1:
        ordered = _descending(weights)
        reached = ordered.cumsum(1) - ordered  # before this token
        drop = reached >= top_p * ordered.sum(1, keepdim=True)  # never the first
        least = ordered.masked_fill(drop, math.inf).amin(1, keepdim=True)
        weights = weights.masked_fill(weights < least, 0)
    return weights


def _argmax(values: torch.Tensor) -> torch.Tensor:
    """The place of each row's largest value; NaN counts as the largest."""
    if values.device.type == "cpu":
        return torch.from_numpy(values.numpy().argmax(1))  # a tenth of torch's time
    return values.argmax(1)


def _descending(values: torch.Tensor) -> torch.Tensor:
    """Each row sorted, the largest value first."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=1)).flip(1)  # torch would sort places along
    return values.sort(dim=1, descending=True).values


def keeps_logits(model: Any) -> bool:
    """Whether the model can be asked for the logits of its last positions alone (`logits_to_keep`)."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters
