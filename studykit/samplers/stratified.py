"""Every source in its share of the pool, in every prefix: random within a source, proportional across sources."""

import heapq
from collections.abc import Sequence

import numpy as np

from studykit.sources import Example


def rank(pool: Sequence[Example], generator: np.random.Generator) -> np.ndarray:
    """Return a permutation of which every prefix holds each source within one example of its share, int64 [len(pool)].

    With a share of m/n, the i-th example (from 0) of a source may come at place i n/m (from 0) and must have come by
    place (i + 1) n/m: then n/m places hold it, and no prefix is off by a whole example. Of those that may come, the one
    that must come soonest does; this meets every deadline. Putting each example in the middle of its places instead
    bunches small sources: a hundred sources of one example each would all come at half of the pool.

    Source:
        Tijdeman (1980), The chairman assignment problem.
    """
    sources = np.array([example.source for example in pool])
    names = generator.permutation(np.unique(sources))  # decides between sources of one size
    members = [generator.permutation(np.flatnonzero(sources == name)) for name in names]
    n = len(pool)
    waiting = [(0, source, 0) for source in range(len(members))]  # (place from which it may come, source, i)
    ready: list[tuple[int, int, int]] = []  # (place by which it must have come, source, i)
    order = np.empty(n, dtype=np.int64)
    for place in range(n):
        while waiting and waiting[0][0] <= place:
            _, source, i = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(i + 1) * n // len(members[source])), source, i))
        _, source, i = heapq.heappop(ready)
        order[place] = members[source][i]
        if i + 1 < len(members[source]):
            heapq.heappush(waiting, ((i + 1) * n // len(members[source]), source, i + 1))
    return order
