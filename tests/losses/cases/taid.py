"""`taid` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

import math
from math import log, sqrt

from ..case import normalised, per_row, variants


@per_row
def reference(p, q, y, schedule="adaptive", t_start=0.4):
    target = normalised([b ** (1 - t_start) * a**t_start for a, b in zip(p, q, strict=True)])
    return -math.fsum(t * math.log(b) for t, b in zip(target, q, strict=True))


CASES = [
    *variants({}, zero_value=False, differentiable=False, moves=True),
    *variants({"schedule": "fixed", "t_start": 0.8}, zero_value=False, differentiable=False),
]
AT_ZEROS = [{}]

ROOTS = [1 / 4, sqrt(3) / 4, sqrt(2) / 8]  # √(pq), the target halfway before it is normalised
HALFWAY = (ROOTS[0] * log(8) + ROOTS[1] * log(4 / 3) + ROOTS[2] * log(8)) / sum(ROOTS)
CONSTANTS = [({"schedule": "fixed", "t_start": 0.5}, HALFWAY)]

REFUSED = [
    ({"schedule": "adaptiv"}, "schedule must be 'adaptive', 'linear' or 'fixed', received 'adaptiv'"),
    ({"t_start": 0.5, "t_end": 0.4}, "t_start <= t_end"),
    ({"t_start": "0.4"}, "t_start must be a valid number, received '0.4'"),
    ({"alpha": "fast"}, "alpha must be a valid number or 'auto'"),
    ({"beta": 1.0}, "beta must be less than 1"),
]
