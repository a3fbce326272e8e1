"""Sample answers to prompts: batched, with a key-value cache, from one generator of randomness.

    answers = sample([(student, 1.0)], prompts, limits, sampling, generator)
    answers = draft_and_check(student, teacher, prompts, limits, generator, ...)       # speculative distillation

A model is wrapped in a `Decoder`, which remembers what it has read. All rows are read in lockstep, and each is padded
on the left only: where rows accept different numbers of drafted tokens, what a row has rejected is forgotten and its
memory moved to the right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from studykit.errors import InputError
from studykit.models import unwrapped


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: only the likeliest tokens that together reach this mass are drawn.
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise InputError(f"sampling temperature must be at least 0, received {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must lie in (0, 1], received {self.top_p}")

    def distribution(self, logits: Tensor) -> Tensor:
        """Return what is drawn from, before `top_p`: probabilities, float [..., V]."""
        if self.temperature == 0:
            return nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
        return (logits / self.temperature).softmax(dim=-1)


@dataclass
class Answers:
    """What was generated.

    Attributes:
        tokens: one list of token ids per prompt, the end token with it where it was reached.
        ended: whether each reached it.
        generated: tokens drawn from any model, rejected drafts among them.
        scored: tokens that each model has read, in the order the models were given.
    """

    tokens: list[list[int]]
    ended: list[bool]
    generated: int
    scored: list[int]


class Decoder:
    """A model and what it has read so far.

    Args:
        model: a causal language model, in evaluation mode; the wrappers of adapters and data parallelism are seen
            through.
        vocabulary: logits past so many rows belong to no token and are never drawn.
        forgets: keep what a sliding window would drop, so that columns can be taken back.
    """

    def __init__(self, model: nn.Module, vocabulary: int, *, forgets: bool = False):
        self.model, self.vocabulary = unwrapped(model), vocabulary
        self.cache: Any = DynamicCache() if forgets else DynamicCache(config=self.model.config)
        self.read = 0

    def feed(self, tokens: Tensor, mask: Tensor, keep: int = 1) -> Tensor:
        """Read further columns and return the logits behind the last `keep` of them, float32 [B, keep, V].

        Args:
            tokens: int64 [B, n], the columns that are new.
            mask: bool [B, L], which of all columns so far count for which row; the new ones are the last n.
            keep: how many columns' logits are wanted.
        """
        new = tokens.shape[1]
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -new:]
        made = self.model(
            input_ids=tokens,
            attention_mask=mask.long(),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        self.read += int(mask[:, -new:].sum())
        return made.logits[:, -keep:, : self.vocabulary].float()

    def keep(self, columns: Tensor) -> None:
        """Keep columns [B, L] of each row, in that order."""
        for layer in self.cache.layers:
            layer.keys, layer.values = (_gathered(part, columns) for part in (layer.keys, layer.values))


def draw(probabilities: Tensor, top_p: float, generator: torch.Generator) -> Tensor:
    """Draw one token per row by its place in the cumulative distribution: one random number per row, int64 [B].

    The randomness comes from the CPU whatever the device, so that a checkpoint of the generator is enough to resume.

    >>> draw(torch.tensor([[0.0, 1.0], [0.3, 0.7]]), 0.5, torch.Generator().manual_seed(0))
    tensor([1, 1])
    """
    uniform = torch.rand(len(probabilities), 1, generator=generator, dtype=torch.float64).to(probabilities.device)
    mass, ids = probabilities, None
    if top_p < 1:
        mass, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    cumulative = mass.double().cumsum(dim=-1)
    kept = cumulative[:, -1:]
    if top_p < 1:
        within = cumulative - mass < top_p * kept
        kept = cumulative.gather(1, within.sum(dim=-1, keepdim=True) - 1)
    place = torch.searchsorted(cumulative, uniform * kept, right=True)
    # Rounding may leave the very end of the line past the last token that has any mass.
    last = (mass > 0).long() * torch.arange(mass.shape[1], device=mass.device)
    place = torch.minimum(place, last.amax(dim=-1, keepdim=True))
    return (place if ids is None else ids.gather(1, place))[:, 0]


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer: chat models may end a turn with another than the tokenizer's end token."""
    configured = unwrapped(model).generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*listed, tokenizer.eos_token_id] if token is not None})


def left_padded(prompts: Sequence[Sequence[int]], pad_token_id: int, device: Any = None) -> tuple[Tensor, Tensor]:
    """Return prompts as token ids and mask, int64 and bool [B, T], padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    ids = [[pad_token_id] * (width - len(p)) + list(p) for p in prompts]
    mask = [[False] * (width - len(p)) + [True] * len(p) for p in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


@torch.no_grad()
def sample(
    models: Sequence[tuple[nn.Module, float]],
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    sampling: Sampling,
    generator: torch.Generator,
    *,
    ends: Sequence[int],
    pad: int,
    vocabulary: int,
) -> Answers:
    """Sample from a model, or token by token from a mixture of several.

    Args:
        models: each with its share of the mixture; shares sum to 1.
        prompts: token ids.
        limits: most new tokens of each row.
        sampling: temperature of every model, and `top_p` of the mixture.
        generator: the only source of randomness, on the CPU.
        ends: tokens that end an answer.
        pad: the padding token.
        vocabulary: rows that may be drawn.
    """
    decoders = [Decoder(model, vocabulary) for model, _ in models]
    tokens, mask = left_padded(prompts, pad, next(models[0][0].parameters()).device)
    rows = _Rows(limits, ends, tokens.device)
    while rows.live.any():
        mixture: Any = 0
        for decoder, (_, share) in zip(decoders, models, strict=True):
            mixture = mixture + share * sampling.distribution(decoder.feed(tokens, mask)[:, -1])
        drawn = draw(mixture, sampling.top_p, generator)
        rows.generated += int(rows.live.sum())
        tokens = torch.where(rows.live, drawn, pad)[:, None]
        rows.take(tokens, rows.live.long())
        mask = torch.cat([mask, rows.live[:, None]], dim=1)
    return rows.answers([decoder.read for decoder in decoders])


@torch.no_grad()
def draft_and_check(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    generator: torch.Generator,
    *,
    top_k: int,
    draft_tokens: int,
    student_sampling: Sampling,
    teacher_sampling: Sampling,
    ends: Sequence[int],
    pad: int,
    vocabulary: int,
) -> tuple[Answers, int, int]:
    """Let the student draft a few tokens at a time and the teacher replace the first that it finds too unlikely.

    A drafted token is accepted while it is among the teacher's `top_k` at its place; at the first that is not, the
    rest of the draft is dropped and that token is drawn from the teacher.

    Returns:
        The answers, the number of drafted tokens that were checked, and of those that were accepted. Tokens drafted
        behind a rejection or an end are not checked.

    Source:
        Xu et al. (2025), Speculative Knowledge Distillation, algorithm 1.
    """
    readers = Decoder(student, vocabulary, forgets=True), Decoder(teacher, vocabulary, forgets=True)
    pending, mask = left_padded(prompts, pad, next(student.parameters()).device)
    rows = _Rows(limits, ends, pending.device)
    checked = accepted = 0
    while rows.live.any():
        before = mask.shape[1]
        drafted, tokens = [], pending
        for _ in range(draft_tokens):
            logits = readers[0].feed(tokens, mask)[:, -1]
            tokens = draw(student_sampling.distribution(logits), student_sampling.top_p, generator)[:, None]
            drafted.append(tokens)
            mask = torch.cat([mask, rows.live[:, None]], dim=1)
        rows.generated += draft_tokens * int(rows.live.sum())
        mask = mask[:, :-1]  # nobody has read the last drafted token
        draft = torch.cat(drafted, dim=1)
        logits = readers[1].feed(torch.cat([pending, draft[:, :-1]], dim=1), mask, keep=draft_tokens)
        first = _first_rejected(draft, logits, top_k)
        places = torch.arange(draft_tokens, device=draft.device)
        offered = rows.until_done(draft, torch.full_like(first, draft_tokens))
        rejected = rows.live & (first < offered)
        checked += int(torch.minimum(first + 1, offered)[rows.live].sum())
        accepted += int(torch.minimum(first, offered)[rows.live].sum())
        if rejected.any():
            at = first.clamp(max=draft_tokens - 1)[:, None]
            behind = logits.gather(1, at[:, :, None].expand(-1, -1, logits.shape[-1]))[:, 0]
            drawn = draw(teacher_sampling.distribution(behind), teacher_sampling.top_p, generator)
            rows.generated += int(rejected.sum())
            draft = torch.where(rejected[:, None] & (places == first[:, None]), drawn[:, None], draft)
        kept = rows.take(draft, torch.where(rejected, first + 1, draft_tokens))
        # A row's last kept token is pending; of the columns both have read behind the old one, those before it count.
        read = (kept - 1).clamp(min=0)
        columns = _moved_right(before + read)
        mask = torch.cat([mask.gather(1, columns.clamp(min=0)) & (columns >= 0), rows.live[:, None]], dim=1)
        pending = draft.gather(1, read[:, None])
        for reader in readers:
            reader.keep(columns.clamp(min=0))
    return rows.answers([reader.read for reader in readers]), checked, accepted


def _moved_right(lengths: Tensor) -> Tensor:
    """Return which columns to keep so that each row's first `lengths` end at the right, int64 [B, L]; -1 is padding.

    >>> _moved_right(torch.tensor([1, 3]))
    tensor([[-1, -1,  0],
            [ 0,  1,  2]])
    """
    longest = int(lengths.max())
    columns = torch.arange(longest, device=lengths.device) - (longest - lengths)[:, None]
    return columns.clamp(min=-1)


def _gathered(memory: Tensor, columns: Tensor) -> Tensor:
    """Return keys or values [B, heads, L', D] at columns [B, L] of each row."""
    wanted = columns[:, None, :, None].expand(-1, memory.shape[1], -1, memory.shape[3])
    return memory.gather(2, wanted)


def _first_rejected(draft: Tensor, logits: Tensor, top_k: int) -> Tensor:
    """Return the place of the first drafted token outside the teacher's top_k, or the length of the draft, int64 [B].

    A token is within the top k when fewer than k tokens are strictly likelier.
    """
    own = logits.gather(2, draft[:, :, None])
    outside = (logits > own).sum(dim=-1) >= top_k
    none = torch.full_like(outside[:, :1], True)
    return torch.cat([outside, none], dim=1).int().argmax(dim=1)


class _Rows:
    """Which rows still go on, and what each has so far."""

    def __init__(self, limits: Sequence[int], ends: Sequence[int], device: Any):
        self.left = torch.tensor(limits, device=device)
        self.ends = torch.tensor(ends, device=device)
        self.live = self.left > 0
        self.ended = torch.zeros_like(self.live)
        self.generated = 0
        self._parts: list[tuple[Tensor, Tensor]] = []

    def until_done(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Return how many of the first `counts` tokens a row may take: up to its first end token and its limit."""
        ends = torch.isin(tokens, self.ends)
        none = torch.full_like(ends[:, :1], True)
        to_end = torch.cat([ends, none], dim=1).int().argmax(dim=1) + 1
        return torch.minimum(torch.minimum(counts, to_end), self.left) * self.live

    def take(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Add tokens [B, n] to the live rows and return how many each took, int64 [B]."""
        taken = self.until_done(tokens, counts)
        last = tokens.gather(1, (taken - 1).clamp(min=0)[:, None])[:, 0]
        self._parts.append((tokens, taken))
        self.left = self.left - taken
        self.ended |= self.live & (taken > 0) & torch.isin(last, self.ends)
        self.live = self.live & ~self.ended & (self.left > 0)
        return taken

    def answers(self, scored: list[int]) -> Answers:
        rows: list[list[int]] = [[] for _ in self.left]
        for tokens, taken in self._parts:
            for row, own, count in zip(rows, tokens.tolist(), taken.tolist(), strict=True):
                row.extend(own[:count])
        return Answers(rows, self.ended.tolist(), self.generated, scored)
