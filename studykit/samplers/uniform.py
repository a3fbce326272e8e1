"""Every example with the same chance: a random permutation of the pool."""

from collections.abc import Sequence

import numpy as np

from studykit.sources import Example


def uniform(pool: Sequence[Example], generator: np.random.Generator) -> np.ndarray:
    """Return a random permutation, int64 [len(pool)]."""
    return generator.permutation(len(pool))
