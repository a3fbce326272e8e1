"""A model with its key-value cache: it reads new columns, gives their logits, and can undo what it has read."""

from inspect import signature
from typing import Any

from torch import Tensor, nn

from studykit.errors import InputError
from studykit.generation.kv_cache import InPlaceLayer, Shift, kv_cache_for, supports_rollback
from studykit.models.states import unwrap


class Decoder:
    """A causal language model and the keys and values of the columns that it has read.

    Args:
        model: in evaluation mode; the wrappers of adapters and data parallelism are taken off.
        vocab_size: logits from this id on belong to no token and are cut off.
        max_columns: capacity of the cache, in tokens per row.

    Attributes:
        supports_rollback: whether columns can be undone and rows left out; a recurrent state allows neither.

    Raises:
        InputError: the model takes no key-value cache.
    """

    def __init__(self, model: nn.Module, vocab_size: int, max_columns: int):
        self.model, self.vocab_size = unwrap(model), vocab_size
        if "past_key_values" not in signature(self.model.forward).parameters:
            raise InputError(
                f"{type(self.model).__name__} takes no key-value cache, so it cannot generate here: choose a model "
                "with attention, or data and scorers that need no generated answer"
            )
        self.kv_cache = kv_cache_for(self.model.config, max_columns)
        self.supports_rollback = supports_rollback(self.kv_cache)
        self._tokens_read: Any = 0

    def forward(self, tokens: Tensor, mask: Tensor, logits_to_keep: int = 1) -> Tensor:
        """Read new columns and return the logits of the last `logits_to_keep` of them, float32 [B, n, V].

        Args:
            tokens: int64 [B, n], the new columns.
            mask: bool [B, L], whether a row has a token at each column so far; the last n columns are the new ones.
            logits_to_keep: number of columns whose logits are returned.
        """
        new = tokens.shape[1]
        output = self.model(
            input_ids=tokens,
            attention_mask=mask.long(),
            position_ids=(mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -new:],
            past_key_values=self.kv_cache,
            use_cache=True,
            logits_to_keep=logits_to_keep,
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
