"""`alpha_beta` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

import math
from math import log

from ..case import per_row, variants


@per_row
def reference(p, q, y, alpha=0.2, beta=0.7):
    total = 0.0
    for a, b in zip(p, q, strict=True):
        ratio = math.log(a / b) if a > 0 else -math.inf
        if alpha == 0 and beta == 0:
            total += ratio**2 / 2
        elif beta == 0:
            total += (a**alpha * alpha * ratio - a**alpha + b**alpha) / alpha**2
        elif alpha == 0:
            total += (b**beta * -beta * ratio - b**beta + a**beta) / beta**2
        elif alpha + beta == 0:
            total += (-alpha * ratio + (a / b) ** alpha - 1) / alpha**2
        else:
            s = alpha + beta
            total -= (a**alpha * b**beta - alpha / s * a**s - beta / s * b**s) / (alpha * beta)
    return total


CASES = [
    *variants({}, {"alpha": 0.5, "beta": 0.5}, {"alpha": -0.2, "beta": 1.0}, {"alpha": 2, "beta": -0.5}),
    *variants({"alpha": 0, "beta": 0.6}, {"alpha": 0.6, "beta": 0}, {"alpha": 0.5, "beta": -0.5}),
    *variants({"alpha": 0, "beta": 0}),
]
AT_ZEROS = [{}, {"alpha": 0.6, "beta": 0.4}]

CONSTANTS = [
    ({"alpha": 1, "beta": 1}, (9 + 16 + 1) / 64 / 2),
    ({"alpha": 1, "beta": 2}, -(39 - 40 / 3 - 2 * 109 / 3) / 256 / 2),
    ({"alpha": 0, "beta": 2}, (-6 / 64 * log(2) + 9 / 8 * log(3) - 14 / 64) / 4),
    ({"alpha": 1, "beta": -1}, log(1 / 4) + log(3) + log(1 / 2) + (4 + 1 / 3 + 2) - 3),
    ({"alpha": 0, "beta": 0}, (log(4) ** 2 + log(3) ** 2 + log(2) ** 2) / 2),
]

SIBLINGS = [({"alpha": 1, "beta": 0}, "forward_kl"), ({"alpha": 0, "beta": 1}, "reverse_kl")]
