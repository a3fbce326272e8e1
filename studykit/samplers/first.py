"""No draw: the pool's own order, for a pool whose order is already random."""

from collections.abc import Sequence

import numpy as np

from studykit.sources import Example


def first(pool: Sequence[Example], generator: np.random.Generator) -> np.ndarray:
    """Return the order of the pool, int64 [len(pool)]."""
    return np.arange(len(pool))
