"""A key-value cache that is allocated once and written in place, and from which columns and rows can be taken out.

transformers' static cache attends to everything it has allocated at every step, and cannot be cropped; its dynamic
cache copies everything it holds for every new token.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import CacheLayerMixin, DummyLayer, DynamicLayer, DynamicSlidingWindowLayer


def kv_cache_for(config: Any, max_columns: int) -> DynamicCache:
    """Return an empty cache for a model, with a capacity of `max_columns` tokens per row.

    Layers other than plain attention (recurrent states, indexers) stay those of transformers.
    """
    cache = DynamicCache(config=config)
    cache.layers = [_in_place(layer, max_columns) for layer in cache.layers]
    return cache


def supports_rollback(cache: DynamicCache) -> bool:
    """Return whether columns and rows can be taken out of a cache."""
    return all(isinstance(layer, InPlaceLayer | DummyLayer) for layer in cache.layers)


@dataclass(frozen=True)
class Shift:
    """Single tokens, and by how many columns each is to move to the right.

    Attributes:
        rows: int64 [N].
        columns: int64 [N], before the shift.
        distances: int64 [N].
    """

    rows: Tensor
    columns: Tensor
    distances: Tensor


class InPlaceLayer(CacheLayerMixin):
    """One attention layer's keys and values, each [B, heads, columns, D]; attention sees a view of the filled columns.

    Args:
        max_columns: capacity of each row, in tokens.
        window: size of sliding-window attention: the query's column and the `window - 1` before it; earlier ones stay
            in memory. None: attention sees all columns.
    """

    is_croppable = True

    def __init__(self, max_columns: int, window: int | None = None):
        super().__init__()
        self.max_columns, self.window, self.filled = max_columns, window, 0
        self.is_sliding = window is not None
        self.keys: Any
        self.values: Any

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate memory, in the shape and on the device of the first keys and values."""
        self.keys, self.values = (
            part.new_empty(*part.shape[:2], self.max_columns, part.shape[3]) for part in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write new columns [B, heads, n, D] and return views of the columns that attention sees.

        Raises:
            RuntimeError: the capacity is exceeded.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        first, start = self._first_visible, self.filled
        self.filled += key_states.shape[2]
        # Not by a slice: one that begins past the end is empty, and an assignment to it broadcasts silently.
        self.keys.narrow(2, start, key_states.shape[2]).copy_(key_states)
        self.values.narrow(2, start, value_states.shape[2]).copy_(value_states)
        return self.keys[:, :, first : self.filled], self.values[:, :, first : self.filled]

    @property
    def _first_visible(self) -> int:
        """The first column that the next query sees."""
        return 0 if self.window is None else max(self.filled - self.window + 1, 0)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of columns that the next queries see, and the first of these columns."""
        return self.filled + query_length - self._first_visible, self._first_visible

    def get_seq_length(self) -> int:
        """Return the number of filled columns."""
        return self.filled

    def get_max_length(self) -> int:
        """Return the capacity in columns."""
        return self.max_columns

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last columns; their number is given as a negative one, as in transformers."""
        self.filled += tokens_to_remove

    def select(self, rows: Tensor, first_column: int) -> None:
        """Reduce the cache to some rows, int64 [b], and remove the columns before the first one."""
        for name in ("keys", "values"):
            part = getattr(self, name)
            part[: len(rows), :, : self.filled - first_column] = part[rows, :, first_column : self.filled]
            setattr(self, name, part[: len(rows)])
        self.filled -= first_column

    def shift(self, shift: Shift) -> None:
        """Move single tokens to the right, over the columns that are there."""
        for part in (self.keys, self.values):
            heads = torch.arange(part.shape[1], device=part.device)
            source = (shift.rows[:, None] * part.shape[1] + heads) * self.max_columns + shift.columns[:, None]
            target = source + shift.distances[:, None]
            flat = part.view(-1, part.shape[3])
            flat.index_copy_(0, target.flatten(), flat.index_select(0, source.flatten()))


def _in_place(layer: Any, max_columns: int) -> Any:
    if type(layer) is DynamicSlidingWindowLayer:
        return InPlaceLayer(max_columns, layer.sliding_window)
    return InPlaceLayer(max_columns) if type(layer) is DynamicLayer else layer
