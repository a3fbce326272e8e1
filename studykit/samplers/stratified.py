"""Every source in its share of the pool, in every prefix: random within a source, proportional across sources."""

import heapq
from collections.abc import Sequence

import numpy as np

from studykit.sources import Example, column


def stratified(pool: Sequence[Example], generator: np.random.Generator) -> np.ndarray:
    """Return a permutation of which every prefix holds each source within one example of its share, int64 [len(pool)].

    With a share of m/n, the i-th example of a source may take position i n/m or a later one, and must come before
    position (i + 1) n/m, all counted from 0: then no prefix is off by a whole example. Of the examples that may come,
    the one with the earliest deadline does; this meets every deadline. Putting each example into the middle of its
    interval instead bunches small sources: a hundred sources of one example each would all come at half of the pool.

    Source:
        Tijdeman (1980), The chairman assignment problem.
    """
    sources = column(pool, "source")
    names = generator.permutation(np.array(sorted(set(sources))))  # decides between sources of one size
    members = [generator.permutation(np.flatnonzero(sources == name)) for name in names]
    n = len(pool)
    waiting = [(0, source, 0) for source in range(len(members))]  # (first position it may take, source, i)
    ready: list[tuple[int, int, int]] = []  # (deadline, source, i)
    order = np.empty(n, dtype=np.int64)
    for position in range(n):
        while waiting and waiting[0][0] <= position:
            _, source, i = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(i + 1) * n // len(members[source])), source, i))
        _, source, i = heapq.heappop(ready)
        order[position] = members[source][i]
        if i + 1 < len(members[source]):
            heapq.heappush(waiting, ((i + 1) * n // len(members[source]), source, i + 1))
    return order
