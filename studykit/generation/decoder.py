"""A model that reads new columns of tokens, gives their logits, and can undo what it has read.

    decoder = open_decoder(model, vocab_size, max_columns)
    logits = decoder.forward(tokens, mask)

A `CachedDecoder` keeps the keys and values of what it has read. A `RecomputingDecoder` reads the whole rows again for
every token, as in training: slower, and right for every causal model. It is taken for models that keep no keys and
values (Mamba, RWKV, xLSTM) or take no positions (BART), for recurrent states where columns will be undone, and
where a cache of another kind than keys and values gives other logits than whole rows.
"""

from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from studykit.generation.kv_cache import InPlaceLayer, Shift, kv_cache_for, supports_rollback
from studykit.models.limits import takes_kv_cache
from studykit.models.probe import TOLERANCE
from studykit.models.projection import output_head, project
from studykit.models.states import hidden_states, unwrap

_LONGER, _SHORTER = 5, 3
"""Tokens of the prompts on which a cache is compared with whole rows."""


class Decoder(Protocol):
    """A causal language model and the columns that it has read.

    Attributes:
        supports_rollback: whether columns can be undone and rows left out; a recurrent state allows neither.
    """

    supports_rollback: bool

    def forward(self, tokens: Tensor, mask: Tensor, logits_to_keep: int = 1) -> Tensor:
        """Read new columns and return the logits of the last `logits_to_keep` of them, float32 [B, n, V].

        Args:
            tokens: int64 [B, n], the new columns.
            mask: bool [B, L], whether a row has a token at each column so far; the last n columns are the new ones.
            logits_to_keep: number of columns whose logits are returned.
        """
        ...

    @property
    def tokens_read(self) -> int:
        """Number of tokens read so far, without padding; tokens that were rolled back are included."""
        ...

    def rollback(self, columns: int, shift: Shift | None = None) -> None:
        """Undo the last columns; before that, shift single tokens to the right so that they are not among them."""
        ...

    def select(self, rows: Tensor, first_column: int) -> None:
        """Continue with some of the rows, int64 [b], and without the columns before the first one."""
        ...


def open_decoder(model: nn.Module, vocab_size: int, max_columns: int, *, needs_rollback: bool = False) -> Decoder:
    """Return a decoder of a model: with a cache where the model has one that does what is needed.

    Args:
        model: in evaluation mode; the wrappers of adapters and data parallelism are taken off.
        vocab_size: logits from this id on belong to no token and are cut off.
        max_columns: capacity of the cache, in tokens per row.
        needs_rollback: whether columns will be undone.
    """
    if takes_kv_cache(unwrap(model)):
        decoder = CachedDecoder(model, vocab_size, max_columns)
        if decoder.supports_rollback or (not needs_rollback and _is_exact(model, vocab_size)):
            return decoder
    return RecomputingDecoder(model, vocab_size)


def _is_exact(model: nn.Module, vocab_size: int) -> bool:
    try:
        cached, whole = compare_decoders(model, vocab_size)
    except Exception:  # whatever an architecture raises
        return False
    return bool((cached - whole).abs().max() <= TOLERANCE * whole.abs().max())


@torch.no_grad()
def compare_decoders(model: nn.Module, vocab_size: int) -> list[Tensor]:
    """Return the logits of two prompts and two tokens after them, read with a cache and as whole rows, each [B, 3, V].

    The prompts have different lengths, so that one is padded on the left.
    """
    decoders = [CachedDecoder(model, vocab_size, _LONGER + 2), RecomputingDecoder(model, vocab_size)]
    ids = (torch.arange(2 * _LONGER, device=unwrap(model).device).view(2, -1) * 5 + 11) % vocab_size
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, : _LONGER - _SHORTER] = False
    parts: list[list[Tensor]] = [[], []]
    for tokens in (ids * mask, ids[:, :1], ids[:, 1:2]):
        mask = mask if not parts[0] else torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        for decoder, logits in zip(decoders, parts, strict=True):
            logits.append(decoder.forward(tokens, mask))
    return [torch.cat(logits, dim=1) for logits in parts]


class CachedDecoder:
    """A causal language model and the keys and values of the columns that it has read.

    Args:
        model: in evaluation mode, and takes a key-value cache.
        vocab_size: logits from this id on belong to no token and are cut off.
        max_columns: capacity of the cache, in tokens per row.
    """

    def __init__(self, model: nn.Module, vocab_size: int, max_columns: int):
        self.model, self.vocab_size = unwrap(model), vocab_size
        self.kv_cache = kv_cache_for(self.model.config, max_columns)
        self.supports_rollback = supports_rollback(self.kv_cache)
        self._takes_positions = "position_ids" in signature(self.model.forward).parameters
        self._tokens_read: Any = 0

    def forward(self, tokens: Tensor, mask: Tensor, logits_to_keep: int = 1) -> Tensor:
        """Read new columns and return the logits of the last `logits_to_keep` of them, float32 [B, n, V]."""
        new = tokens.shape[1]
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -new:]
        output = self.model(
            input_ids=tokens,
            attention_mask=mask.long(),
            past_key_values=self.kv_cache,
            use_cache=True,
            logits_to_keep=logits_to_keep,
            **({"position_ids": positions} if self._takes_positions else {}),
        )
        self._tokens_read = self._tokens_read + mask[:, -new:].sum()
        return output.logits[:, -logits_to_keep:, : self.vocab_size].float()

    @property
    def tokens_read(self) -> int:
        """Number of tokens read so far, without padding; tokens that were rolled back are included."""
        return int(self._tokens_read)

    def rollback(self, columns: int, shift: Shift | None = None) -> None:
        """Undo the last columns; before that, shift single tokens to the right so that they are not among them."""
        for layer in self._layers:
            if shift is not None:
                layer.shift(shift)
            layer.crop(-columns)

    def select(self, rows: Tensor, first_column: int) -> None:
        """Continue with some of the rows, int64 [b], and without the columns before the first one."""
        for layer in self._layers:
            layer.select(rows, first_column)

    @property
    def _layers(self) -> list[InPlaceLayer]:
        return [layer for layer in self.kv_cache.layers if isinstance(layer, InPlaceLayer) and layer.is_initialized]


class RecomputingDecoder:
    """A causal language model that reads its rows from the start every time, padded on the right as in training.

    A recurrent state that ignores the attention mask, as RWKV's, is then right too.

    Args:
        model: in evaluation mode.
        vocab_size: logits from this id on belong to no token and are cut off.
    """

    supports_rollback = True

    def __init__(self, model: nn.Module, vocab_size: int):
        self.model, self.head = unwrap(model), output_head(model).detach().first_rows(vocab_size)
        self._tokens: Tensor | None = None
        self._tokens_read: Any = 0

    def forward(self, tokens: Tensor, mask: Tensor, logits_to_keep: int = 1) -> Tensor:
        """Read all columns and return the logits of the last `logits_to_keep` of them, float32 [B, n, V]."""
        self._tokens = tokens if self._tokens is None else torch.cat([self._tokens, tokens], dim=1)
        lengths = mask.sum(dim=1)
        order = (~mask).long().argsort(dim=1, stable=True)[:, : int(lengths.max())]
        filled = torch.arange(order.shape[1], device=mask.device) < lengths[:, None]
        states = hidden_states(self.model, self._tokens.gather(1, order) * filled, filled.long())
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -logits_to_keep:]
        states = states.gather(1, positions[:, :, None].expand(-1, -1, states.shape[-1]))
        self._tokens_read = self._tokens_read + lengths.sum()
        head = self.head
        return project(states.flatten(0, 1), head.weight, head.bias, head.logit_scale, head.softcap).unflatten(
            0, positions.shape
        )

    @property
    def tokens_read(self) -> int:
        """Number of tokens read so far, each as often as it was read, without padding."""
        return int(self._tokens_read)

    def rollback(self, columns: int, shift: Shift | None = None) -> None:
        """Undo the last columns; before that, shift single tokens to the right so that they are not among them."""
        if self._tokens is None:
            return
        if shift is not None:
            moved = self._tokens[shift.rows, shift.columns]
            self._tokens = self._tokens.index_put((shift.rows, shift.columns + shift.distances), moved)
        self._tokens = self._tokens[:, : self._tokens.shape[1] - columns]

    def select(self, rows: Tensor, first_column: int) -> None:
        """Continue with some of the rows, int64 [b], and without the columns before the first one."""
        if self._tokens is not None:
            self._tokens = self._tokens[rows, first_column:]
