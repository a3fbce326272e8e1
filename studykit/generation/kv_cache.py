"""Keys and values of what a model has read: allocated once, written in place, moved only where tokens are taken back.

transformers' own static cache attends to all it has allocated, at every step, and cannot take anything back; its
dynamic cache copies all it holds for every token.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import CacheLayerMixin, DummyLayer, DynamicLayer, DynamicSlidingWindowLayer


def kv_cache_for(config: Any, columns: int) -> DynamicCache:
    """Return an empty cache for a model with room for so many columns.

    Layers that are no plain attention (recurrent states, indexers) are those of transformers, and stay as they are.
    """
    cache = DynamicCache(config=config)
    cache.layers = [_in_place(layer, columns) for layer in cache.layers]
    return cache


def can_move(cache: DynamicCache) -> bool:
    """Return whether rows and columns of a cache can be moved and taken back."""
    return all(isinstance(layer, InPlaceLayer | DummyLayer) for layer in cache.layers)


class InPlaceLayer(CacheLayerMixin):
    """One attention layer's keys and values, each [B, heads, columns, D]; attention sees a view of what is filled.

    Args:
        columns: room of each row, in tokens.
        window: attention sees so many columns, the query's own among them; all of them stay in memory. None: no window.
    """

    is_croppable = True

    def __init__(self, columns: int, window: int | None = None):
        super().__init__()
        self.columns, self.window, self.filled = columns, window, 0
        self.is_sliding = window is not None
        self.keys: Any
        self.values: Any

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for as many rows and heads as the first keys have."""
        self.keys, self.values = (
            part.new_empty(*part.shape[:2], self.columns, part.shape[3]) for part in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write new columns [B, heads, n, D] and return views of what attention is to see.

        Raises:
            RuntimeError: there is no room left.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        first, start = self._first, self.filled
        self.filled += key_states.shape[2]
        # Not by a slice: one that begins past the end takes a single column without a word.
        self.keys.narrow(2, start, key_states.shape[2]).copy_(key_states)
        self.values.narrow(2, start, value_states.shape[2]).copy_(value_states)
        return self.keys[:, :, first : self.filled], self.values[:, :, first : self.filled]

    @property
    def _first(self) -> int:
        """The first column that the next query sees."""
        return 0 if self.window is None else max(self.filled - self.window + 1, 0)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many columns the next queries see, and the first of them."""
        return self.filled + query_length - self._first, self._first

    def get_seq_length(self) -> int:
        """Return how many columns are filled."""
        return self.filled

    def get_max_length(self) -> int:
        """Return how many columns there is room for."""
        return self.columns

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last columns; their number is given as a negative one."""
        self.filled += tokens_to_remove

    def keep(self, rows: Tensor, first: int) -> None:
        """Keep some rows, int64 [b], and forget the columns before the first that counts."""
        for name in ("keys", "values"):
            part = getattr(self, name)
            part[: len(rows), :, : self.filled - first] = part[rows, :, first : self.filled]
            setattr(self, name, part[: len(rows)])
        self.filled -= first

    def move(self, rows: Tensor, columns: Tensor, by: Tensor) -> None:
        """Move single tokens to the right: their rows and columns, and how far, each int64 [N]."""
        for part in (self.keys, self.values):
            heads = torch.arange(part.shape[1], device=part.device)
            source = ((rows[:, None] * part.shape[1] + heads) * self.columns + columns[:, None]).flatten()
            flat = part.view(-1, part.shape[3])
            flat.index_copy_(0, source + by.repeat_interleave(part.shape[1]), flat.index_select(0, source))


def _in_place(layer: Any, columns: int) -> Any:
    if type(layer) is DynamicSlidingWindowLayer:
        return InPlaceLayer(columns, layer.sliding_window)
    return InPlaceLayer(columns) if type(layer) is DynamicLayer else layer
