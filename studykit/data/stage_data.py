"""What one stage trains on: its examples, their token sequences, and what is said of them in the record."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from studykit.chat import Encoded
from studykit.sources import Example


@dataclass(frozen=True)
class StageData:
    """What a stage trains on.

    Attributes:
        examples: one for each sequence, in the order in which they were drawn; with `turns="each"` a conversation of
            several answers is several of them.
        encoded: the same as the student's token sequences.
        manifest: what was drawn, by counts and content hashes; plain JSON data.
        selected_sha256: of the examples, where models took part in the selection.
        drawn: the conversations and texts that the budget has drawn, each once.
        shares: of a mixture: for each part its number of examples, which stand one part after the other, and its share
            of the examples of an optimizer step.
    """

    examples: list[Example]
    encoded: Encoded
    manifest: dict[str, Any]
    selected_sha256: str | None = None
    drawn: tuple[Example, ...] = ()
    shares: tuple[tuple[int, float], ...] = ()

    def part(self, number: int) -> tuple[list[Example], Encoded]:
        """Return the examples and token sequences of one part of a mixture; without one, all."""
        if not self.shares:
            return self.examples, self.encoded
        start = sum(size for size, _ in self.shares[:number])
        rows = np.arange(start, start + self.shares[number][0])
        return [self.examples[row] for row in rows], self.encoded.take(rows)
