"""How long many of a kind will take, from a few of them: parts that grow while the time allows it, and their pace.

times = []
take_within(step, [items[:n] for n in (*growing_sizes(64), 64)])      # `step` appends (items, seconds) to `times`
pace_at(times, 64)                                                # seconds per item where 64 are taken at once
"""

import time
from collections.abc import Callable
from typing import Any

_STEPS, _WITHIN_S = 10, 4.0
"""A part of the probe ends after this many steps or seconds."""


def growing_sizes(largest: int) -> list[int]:
    """Return 1, 4, 16 ... below a number: the time of each part tells whether the next one ends in time.

    >>> growing_sizes(20)
    [1, 4, 16]
    """
    return [4**n for n in range(largest.bit_length()) if 4**n < largest] or [1]


def take_within(step: Callable[[Any], None], parts: list[Any]) -> None:
    """Take steps, at most ten, as long as the next one, at the pace of the last, ends in time; at least two.

    The time is counted from the end of the first step, in which everything is made.
    """
    began = None
    for number, part in enumerate(parts[:_STEPS]):
        before = time.monotonic()
        step(part)
        now = time.monotonic()
        began = now if began is None else began
        growth = len(parts[number + 1]) / len(part) if number + 1 < len(parts) else 1.0
        if number >= 1 and now - began + growth * (now - before) > _WITHIN_S:
            return


def pace(times: list[tuple[int, float]]) -> float:
    """Return seconds per unit from measured (units, seconds): of the larger measurements the fastest.

    Small ones are left out, since what a step takes beside its tokens shows in them; other processes only add time.

    >>> pace([(10, 9.0), (60, 3.0), (100, 4.0), (100, 2.0)])
    0.02
    """
    largest = max(units for units, _ in times)
    return min(seconds / units for units, seconds in times if 2 * units >= largest)


def pace_at(times: list[tuple[int, float]], units: int) -> float:
    """Return seconds per unit where that number is taken at once, from measured (units, seconds) of fewer.

    A part of the time grows with the units and a part does not: a generation has as many steps for one item as for
    sixty-four. The first measurement is left out where there are others: everything is made in it.

    >>> pace_at([(1, 9.0), (4, 2.0), (16, 5.0)], 16), pace_at([(1, 9.0), (4, 2.0), (16, 5.0)], 64)
    (0.3125, 0.265625)
    """
    fastest: dict[int, float] = {}
    for count, seconds in times[1:] or times:
        fastest[count] = min(seconds, fastest.get(count, seconds))
    small, large = min(fastest), max(fastest)
    growing = (fastest[large] - fastest[small]) / max(1, large - small)
    growing = min(max(growing, 0.0), fastest[large] / large) if large > small else fastest[large] / large
    return (fastest[large] + growing * (units - large)) / units
