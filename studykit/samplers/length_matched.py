"""Random examples with the same lengths as those that come first in `difference`: a control for it."""

from collections.abc import Sequence

import numpy as np

from studykit.samplers import count_of
from studykit.samplers._shares import Share
from studykit.sources import Example

MODELS = ("teacher", "reference")


def length_matched(
    pool: Sequence[Example],
    generator: np.random.Generator,
    teacher_logp: np.ndarray,
    reference_logp: np.ndarray,
    *,
    share: Share = 0.5,
) -> np.ndarray:
    """Return a permutation that starts with random examples, as many of each length as `difference` starts with.

    A likelihood per token depends on length, so that a sampler by likelihood may be one by length in disguise. Lengths
    are counted in words of the answer.
    """
    best = np.argsort(reference_logp - teacher_logp, kind="stable")[: count_of(len(pool), share)]
    lengths = np.array([len(example.answer.split()) for example in pool])
    matched = np.concatenate(
        [
            generator.permutation(np.flatnonzero(lengths == length))[:count]
            for length, count in zip(*np.unique(lengths[best], return_counts=True), strict=True)
        ]
    )
    rest = np.setdiff1d(np.arange(len(pool)), matched)
    return np.concatenate([generator.permutation(matched), generator.permutation(rest)])
