"""Random examples with the same lengths as those that `difference` keeps: a control for it."""

from collections.abc import Sequence

import numpy as np

from studykit.models.names import ModelRef
from studykit.samplers import kept_count
from studykit.samplers.difference import difference
from studykit.sources import Example


def rank(
    pool: Sequence[Example],
    generator: np.random.Generator,
    *,
    teacher: ModelRef | None = None,
    reference: ModelRef | None = None,
    share: float = 0.5,
) -> np.ndarray:
    """Return a permutation whose first `share` is kept, in random order, int64 [len(pool)].

    A likelihood per token depends on length, so that a sampler by likelihood may be one by length in disguise. Lengths
    are counted in words of the answer.


    Args:
        pool: all examples.
        generator: orders what is kept, and the rest.
        teacher: the larger model; it may have another tokenizer.
        reference: a small model, trained on a slice of data that is disjoint from the pool.
        share: of the pool that is kept, in (0, 1].

    Raises:
        InputError: a model that is not named or not there, or a share out of range.
    """
    kept = kept_count(len(pool), share)
    best = np.argsort(-difference(pool, teacher, reference), kind="stable")[:kept]
    lengths = np.array([len(example.answer.split()) for example in pool])
    chosen = []
    for length, count in zip(*np.unique(lengths[best], return_counts=True), strict=True):
        chosen.append(generator.permutation(np.flatnonzero(lengths == length))[:count])
    matched = np.concatenate(chosen)
    rest = np.setdiff1d(np.arange(len(pool)), matched)
    return np.concatenate([generator.permutation(matched), generator.permutation(rest)])
