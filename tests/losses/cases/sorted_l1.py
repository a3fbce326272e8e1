"""`sorted_l1` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

import math
from math import log

from ..case import per_row, variants


@per_row
def reference(p, q, y, weight=1.5):
    rows = [sorted(row, reverse=True) + [0.0] * (max(len(p), len(q)) - len(row)) for row in (p, q)]
    return -math.log(q[y]) + weight * sum(abs(a - b) for a, b in zip(*rows, strict=True))


CASES = variants({}, {"weight": 0.5}, zero_value=False, zero_gradient=False)
AT_ZEROS = [{}]

CONSTANTS = [({}, log(8) + 1.5 * (1 / 4 + 1 / 8 + 1 / 8))]

SIBLINGS = [({"weight": 0.0}, "cross_entropy")]
