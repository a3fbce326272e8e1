"""Whether a sampler draws random numbers: one that does not gives the same ranking for every seed."""

from collections.abc import Sequence

import numpy as np

from studykit.samplers import SAMPLERS, models_of
from studykit.sources import Example


def draws(sampler: str, pool: Sequence[Example]) -> bool:
    """Return whether the generator has moved after a ranking."""
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    SAMPLERS.member(sampler)(pool, generator, *[np.arange(float(len(pool))) for _ in models_of(sampler)])
    return generator.bit_generator.state != before
