"""Token sequences of many examples with their loss masks, in one long row of tokens that all selections share."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Encoded:
    """The token sequences of examples, as slices of one long row of tokens; selections share the row.

    Attributes:
        ids: int32 [total].
        loss_mask: bool [total].
        starts: int64 [n], position of each example's first token.
        lengths: int64 [n], tokens per example.
        response_tokens: int64 [n], supervised tokens per example that have a token before them.
    """

    ids: np.ndarray
    loss_mask: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    response_tokens: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> "Encoded":
        """Concatenate sequences (int [T]) and their loss masks (bool [T])."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        responses = np.array([mask[1:].sum() for mask in masks], dtype=np.int64)
        ids = np.concatenate([np.empty(0, np.int32), *rows]).astype(np.int32)
        loss_mask = np.concatenate([np.empty(0, bool), *masks])
        return cls(ids, loss_mask, np.cumsum(lengths) - lengths, lengths, responses)

    def __len__(self) -> int:
        return len(self.starts)

    def ids_of(self, index: int) -> np.ndarray:
        """Return the token ids of one example, int32 [T]."""
        return self.ids[self._slice(index)]

    def supervised_of(self, index: int) -> np.ndarray:
        """Return the loss mask of one example, bool [T]."""
        return self.loss_mask[self._slice(index)]

    def take(self, indices: np.ndarray) -> "Encoded":
        """Return the sequences with these indices, in this order; the tokens are not copied."""
        columns = (column[indices] for column in (self.starts, self.lengths, self.response_tokens))
        return Encoded(self.ids, self.loss_mask, *columns)

    def _slice(self, index: int) -> slice:
        return slice(int(self.starts[index]), int(self.starts[index] + self.lengths[index]))

    def key_of(self, index: int) -> str:
        """Return the content hash of one token sequence and its loss mask: a teacher's signal depends on no more."""
        content = self.ids_of(index).tobytes() + self.supervised_of(index).tobytes()
        return hashlib.sha256(content).hexdigest()[:32]

    def answer_starts(self) -> np.ndarray:
        """Return where the last answer of each example begins, int64 [n]; its length where it has none."""
        starts = np.array(self.lengths, dtype=np.int64)
        for index in range(len(self)):
            answered = np.flatnonzero(self.supervised_of(index))
            if len(answered):
                breaks = np.flatnonzero(np.diff(answered) > 1)
                starts[index] = answered[breaks[-1] + 1 if len(breaks) else 0]
        return starts
