"""Examples as the token sequences that they are trained as: with `turns="each"` a conversation is several of them.

Sequences.of(examples, tokenizer, turns).response_tokens
count_tokens(pool, tokenizer, turns).response_tokens             # also where the sequences would fill the memory
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from studykit.chat import ENCODING_VERSION, Encoded, Turns, as_sequences, encode, tokenize, tokenizer_hash
from studykit.data import tables
from studykit.data.stored import StoredExamples
from studykit.files import cache_folder, locked
from studykit.sources import Example

_COUNTED_TOGETHER = 4096
_COUNTS = pa.schema([("response_tokens", pa.int64()), ("longest", pa.int64())])


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
    def of(cls, examples: Sequence[Example], tokenizer: Any, turns: Turns | None, *, keep: bool = True) -> "Sequences":
        """Tokenize examples; the tokens are kept on disk, or not."""
        sequences, owners = as_sequences(examples, turns)
        bounds = np.searchsorted(owners, np.arange(len(examples) + 1))
        encoded = encode(sequences, tokenizer, None) if keep else tokenize(sequences, tokenizer)
        return cls(sequences, encoded, bounds)

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


@dataclass(frozen=True)
class TokenCounts:
    """How many tokens each of many examples has.

    Attributes:
        response_tokens: int64 [n], supervised tokens.
        longest: int64 [n], tokens of the longest sequence.
    """

    response_tokens: np.ndarray
    longest: np.ndarray

    def take(self, indices: np.ndarray) -> "TokenCounts":
        """Return the counts of some examples, in this order."""
        return TokenCounts(self.response_tokens[indices], self.longest[indices])


def count_tokens(examples: Sequence[Example], tokenizer: Any, turns: Turns | None) -> Sequences | TokenCounts:
    """Return the token counts of examples: with their sequences, but of examples on disk the counts alone.

    Those of examples on disk are kept there too: a pool is tokenized once.
    """
    if not isinstance(examples, StoredExamples):
        return Sequences.of(examples, tokenizer, turns)
    content = f"{ENCODING_VERSION}:{tokenizer_hash(tokenizer)}:{turns}:{examples.key}"
    file = cache_folder("pools") / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.arrow"
    found = tables.read(file)
    while found is None:
        with locked(file.with_suffix(".lease")):
            if (found := tables.read(file)) is None:
                tables.write(file, _COUNTS, _count(examples, tokenizer, turns), {})
    return TokenCounts(*(found.table[name].to_numpy() for name in _COUNTS.names))


def _count(examples: StoredExamples, tokenizer: Any, turns: Turns | None) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(examples), _COUNTED_TOGETHER):
        part = Sequences.of(examples[start : start + _COUNTED_TOGETHER], tokenizer, turns, keep=False)
        yield pa.record_batch([pa.array(part.response_tokens), pa.array(part.longest)], schema=_COUNTS)
