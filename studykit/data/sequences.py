"""Examples as the token sequences that they are trained as: with `turns="each"` a conversation is several of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from studykit.chat import Encoded, Turns, as_sequences, encode
from studykit.sources import Example


@dataclass(frozen=True)
class Sequences:
    """The token sequences of examples, one example after the other.

    Attributes:
        examples: one for each sequence.
        encoded: the tokens of each sequence.
        bounds: int64 [n + 1], where the sequences of each of n examples begin, and their number.
    """

    examples: list[Example]
    encoded: Encoded
    bounds: np.ndarray

    @classmethod
    def of(cls, examples: Sequence[Example], tokenizer: Any, turns: Turns | None) -> "Sequences":
        """Tokenize examples."""
        sequences, owners = as_sequences(examples, turns)
        bounds = np.searchsorted(owners, np.arange(len(examples) + 1))
        return cls(sequences, encode(sequences, tokenizer, None), bounds)

    def take(self, indices: np.ndarray) -> "Sequences":
        """Return the sequences of some examples, in this order."""
        spans = [np.arange(int(self.bounds[i]), int(self.bounds[i + 1])) for i in indices]
        rows = np.concatenate([np.empty(0, dtype=np.int64), *spans])
        bounds = np.concatenate([[0], np.cumsum([len(span) for span in spans], dtype=np.int64)])
        return Sequences([self.examples[row] for row in rows.tolist()], self.encoded.take(rows), bounds)

    @cached_property
    def response_tokens(self) -> np.ndarray:
        """Supervised tokens of each example, int64 [n]."""
        totals = np.concatenate([[0], np.cumsum(self.encoded.response_tokens)])
        return totals[self.bounds[1:]] - totals[self.bounds[:-1]]

    @cached_property
    def longest(self) -> np.ndarray:
        """Tokens of the longest sequence of each example, int64 [n]."""
        return np.maximum.reduceat(self.encoded.lengths, self.bounds[:-1]) if len(self.examples) else self.bounds[:-1]
