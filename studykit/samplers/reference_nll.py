"""Examples that a small reference model alone finds unlikeliest: a control for `difference`."""

from collections.abc import Sequence

import numpy as np

from studykit.models.names import ModelRef
from studykit.samplers._by_likelihood import best_share_first, likelihood
from studykit.sources import Example


def rank(
    pool: Sequence[Example],
    generator: np.random.Generator,
    *,
    reference: ModelRef | None = None,
    share: float = 0.5,
) -> np.ndarray:
    """Return a permutation whose first `share` is kept, in random order, int64 [len(pool)].

    What is hard for the reference comes first, mistakes in the data among it.


    Args:
        pool: all examples.
        generator: orders what is kept, and the rest.
        reference: a small model, trained on a slice of data that is disjoint from the pool.
        share: of the pool that is kept, in (0, 1].

    Raises:
        InputError: a model that is not named or not there, or a share out of range.
    """
    return best_share_first(-likelihood(pool, reference, "reference"), share, generator)
