"""Every source in its share of the pool, in every prefix: random within a source, proportional across sources."""

from collections.abc import Sequence

import numpy as np

from studykit.sources import Example


def rank(pool: Sequence[Example], generator: np.random.Generator) -> np.ndarray:
    """Return a permutation of which every prefix holds each source within one example of its share, int64 [len(pool)].

    The i-th example (from 0) of a source of m examples is due at the share (i + ½)/m of the whole; sorting by that
    gives the largest-remainder apportionment up to one example, and prefixes of one list are nested by construction.
    """
    due = np.empty(len(pool))
    sources = np.array([example.source for example in pool])
    for source in np.unique(sources):
        members = np.flatnonzero(sources == source)
        due[generator.permutation(members)] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(due, kind="stable")
