"""Examples that the teacher alone finds likeliest: a control for `difference`."""

from collections.abc import Sequence

import numpy as np

from studykit.models.names import ModelRef
from studykit.samplers._by_likelihood import best_share_first, likelihood
from studykit.sources import Example


def rank(
    pool: Sequence[Example],
    generator: np.random.Generator,
    *,
    teacher: ModelRef | None = None,
    share: float = 0.5,
) -> np.ndarray:
    """Return a permutation whose first `share` is kept, in random order, int64 [len(pool)].

    What is easy for the teacher comes first, whether or not a small model knows it already.


    Args:
        pool: all examples.
        generator: orders what is kept, and the rest.
        teacher: the larger model; it may have another tokenizer.
        share: of the pool that is kept, in (0, 1].

    Raises:
        InputError: a model that is not named or not there, or a share out of range.
    """
    return best_share_first(likelihood(pool, teacher, "teacher"), share, generator)
