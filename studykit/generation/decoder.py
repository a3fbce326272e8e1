"""What every way to generate shares: a model and what it has read, and how far each row has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from studykit.errors import InputError
from studykit.generation.kv_cache import InPlaceLayer, can_move, kv_cache_for
from studykit.models.states import unwrap
from studykit.models.vocabulary import token_rows


@dataclass
class Completions:
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
        vocab_size: logits past so many rows belong to no token and are never drawn.
        columns: most columns that it will hold at a time.

    Attributes:
        can_move: whether rows can be dropped and columns taken back; models with a recurrent state cannot.

    Raises:
        InputError: a model without attention, which has no use for a key-value cache.
    """

    def __init__(self, model: nn.Module, vocab_size: int, columns: int):
        self.model, self.vocab_size = unwrap(model), vocab_size
        if "past_key_values" not in signature(self.model.forward).parameters:
            raise InputError(
                f"{type(self.model).__name__} takes no key-value cache, so it cannot answer here: choose a model with "
                "attention, or data and scorers that ask for no answer"
            )
        self.cache = kv_cache_for(self.model.config, columns)
        self.can_move = can_move(self.cache)
        self._read: Any = 0

    def forward(self, tokens: Tensor, mask: Tensor, keep: int = 1) -> Tensor:
        """Read further columns and return the logits behind the last `keep` of them, float32 [B, keep, V].

        Args:
            tokens: int64 [B, n], the columns that are new.
            mask: bool [B, L], which of all columns so far count for which row; the new ones are the last n.
            keep: how many columns' logits are wanted.
        """
        new = tokens.shape[1]
        made = self.model(
            input_ids=tokens,
            attention_mask=mask.long(),
            position_ids=(mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -new:],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        self._read = self._read + mask[:, -new:].sum()
        return made.logits[:, -keep:, : self.vocab_size].float()

    @property
    def read(self) -> int:
        """Tokens read so far, padding not among them."""
        return int(self._read)

    def rollback(self, count: int, moved: tuple[Tensor, Tensor, Tensor] | None) -> None:
        """Forget the last columns, after moving single tokens: rows, columns, and how far to the right, int64 [N]."""
        for layer in self._layers:
            if moved is not None:
                layer.move(*moved)
            layer.crop(-count)

    def keep(self, rows: Tensor, first: int) -> None:
        """Keep some rows, int64 [b], and the columns from `first` on."""
        for layer in self._layers:
            layer.keep(rows, first)

    @property
    def _layers(self) -> list[InPlaceLayer]:
        return [layer for layer in self.cache.layers if isinstance(layer, InPlaceLayer) and layer.is_initialized]


class DecodingState:
    """Which rows still go on, and what each has so far.

    Args:
        max_new_tokens: most new tokens of each row.
        eos_token_ids: tokens that end an answer.
        device: where tokens are.

    Attributes:
        live: which of the rows in the batch still go on, bool [B].
        count: how many these are.
        here: which of all rows are in the batch, bool [R] on the CPU.
        generated: tokens drawn, to be counted by whoever draws.
    """

    def __init__(self, max_new_tokens: Sequence[int], eos_token_ids: Sequence[int], device: Any):
        self.left = torch.tensor(max_new_tokens, device=device)
        self.eos_token_ids = torch.tensor(eos_token_ids, device=device)
        self.live = self.left > 0
        self.count = int(self.live.sum())
        self.here = torch.ones(len(max_new_tokens), dtype=torch.bool)
        self.generated = 0
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def until_done(self, tokens: Tensor, counts: Tensor | int) -> Tensor:
        """Return how many of the first `counts` tokens [B, n] a row may take: up to its first end and its limit."""
        eos_token_ids = torch.isin(tokens, self.eos_token_ids)
        to_end = (eos_token_ids.cumsum(dim=1) - eos_token_ids.long() == 0).sum(dim=1)
        return torch.minimum(to_end, self.left).clamp(max=counts) * self.live

    def take(self, tokens: Tensor, counts: Tensor | int) -> Tensor:
        """Add the first `counts` tokens of [B, n] to the live rows and return how many each took, int64 [B]."""
        taken = self.until_done(tokens, counts)
        last = tokens.gather(1, (taken - 1).clamp(min=0)[:, None])[:, 0]
        self._parts.append((self.here, tokens, taken))
        self.left = self.left - taken
        self.live = self.live & ~torch.isin(last, self.eos_token_ids) & (self.left > 0)
        self.count = int(self.live.sum())
        return taken

    @property
    def half_ended(self) -> bool:
        """Whether some rows go on, and half of those in the batch or more do not."""
        return 0 < 2 * self.count <= len(self.live)

    def drop_ended(self) -> Tensor:
        """Leave ended rows out of the batch and return which of its rows stay, int64 [b]."""
        stay = self.live.nonzero()[:, 0]
        here = self.here.nonzero()[:, 0][self.live.cpu()]
        self.here = torch.zeros_like(self.here).index_fill(0, here, True)
        self.left, self.live = self.left[stay], self.live[stay]
        return stay

    def answers(self, scored: list[int]) -> Completions:
        """Return what the rows have taken."""
        rows: list[list[int]] = [[] for _ in self.here]
        for here, tokens, taken in self._parts:
            for row, own, count in zip(here.nonzero()[:, 0].tolist(), tokens.tolist(), taken.tolist(), strict=True):
                rows[row].extend(own[:count])
        eos_token_ids = set(self.eos_token_ids.tolist())
        return Completions(rows, [bool(row) and row[-1] in eos_token_ids for row in rows], self.generated, scored)


def drop_ended_rows(
    rows: DecodingState, mask: Tensor, tokens: Tensor, decoders: Sequence[Decoder]
) -> tuple[Tensor, Tensor]:
    """Leave ended rows out, and the columns that only they have used; return mask and next tokens of the others."""
    stay = rows.drop_ended()
    mask = mask[stay]
    first = int(mask.any(dim=0).int().argmax())
    for decoder in decoders:
        decoder.keep(stay, first)
    return mask[:, first:], tokens[stay]


def find_eos_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer: chat models may end a turn with another than the tokenizer's end token."""
    configured = unwrap(model).generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*listed, tokenizer.eos_token_id] if token is not None})


def token_settings(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Return end tokens, padding token and the rows that may be drawn, as every way to generate takes them."""
    eos_token_ids, rows = find_eos_token_ids(model, tokenizer), token_rows(tokenizer)
    return {"eos_token_ids": eos_token_ids, "pad_token_id": tokenizer.pad_token_id, "vocab_size": rows}


def pad_left(prompts: Sequence[Sequence[int]], pad_token_id: int, device: Any = None) -> tuple[Tensor, Tensor]:
    """Return prompts as token ids and mask, int64 and bool [B, T], padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    ids = [[pad_token_id] * (width - len(p)) + list(p) for p in prompts]
    mask = [[False] * (width - len(p)) + [True] * len(p) for p in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
