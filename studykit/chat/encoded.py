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
        answers: int64 [n], supervised answers per example; a raw text counts as one.
        left_out: int64 [n], answers per example that are not supervised, since the chat template renders them otherwise
            when further turns follow, or does not mark them as generated.
    """

    ids: np.ndarray
    loss_mask: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    response_tokens: np.ndarray
    answers: np.ndarray
    left_out: np.ndarray

    @classmethod
    def of(
        cls, rows: Sequence[np.ndarray], masks: Sequence[np.ndarray], left_out: Sequence[int] | None = None
    ) -> "Encoded":
        """Concatenate sequences (int [T]) and their loss masks (bool [T])."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        responses = np.array([mask[1:].sum() for mask in masks], dtype=np.int64)
        answers = np.array([np.diff(mask.astype(np.int8), prepend=0).clip(0).sum() for mask in masks], dtype=np.int64)
        without = np.zeros(len(rows), np.int64) if left_out is None else np.array(left_out, dtype=np.int64)
        ids = np.concatenate([np.empty(0, np.int32), *rows]).astype(np.int32)
        loss_mask = np.concatenate([np.empty(0, bool), *masks])
        return cls(ids, loss_mask, np.cumsum(lengths) - lengths, lengths, responses, answers, without)

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
        columns = (self.starts, self.lengths, self.response_tokens, self.answers, self.left_out)
        return Encoded(self.ids, self.loss_mask, *(column[indices] for column in columns))

    def _slice(self, index: int) -> slice:
        return slice(int(self.starts[index]), int(self.starts[index] + self.lengths[index]))

    def key_of(self, index: int) -> str:
        """Return the content hash of one token sequence and its loss mask: a teacher's signal depends on no more."""
        content = self.ids_of(index).tobytes() + self.supervised_of(index).tobytes()
        return hashlib.sha256(content).hexdigest()[:32]

    def ends(self) -> list[int]:
        """Return the ids that end the supervised answers, sorted: what training teaches a model to stop with."""
        before = np.cumsum(self.lengths) - self.lengths
        places = np.repeat(self.starts - before, self.lengths) + np.arange(self.lengths.sum())
        followed = np.append(self.loss_mask[places][1:], False)
        followed[before[1:] - 1] = False
        return np.unique(self.ids[places[self.loss_mask[places] & ~followed]]).tolist()

    def answer_starts(self) -> np.ndarray:
        """Return where the last answer of each example begins, int64 [n]; its length where it has none."""
        starts = np.array(self.lengths, dtype=np.int64)
        for index in range(len(self)):
            answered = np.flatnonzero(self.supervised_of(index))
            if len(answered):
                breaks = np.flatnonzero(np.diff(answered) > 1)
                starts[index] = answered[breaks[-1] + 1 if len(breaks) else 0]
        return starts
