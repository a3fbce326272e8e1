"""`skew_reverse_kl` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

from math import log

from ..case import kl, per_row, variants


@per_row
def reference(p, q, y, skew=0.1):
    return kl(q, [(1 - skew) * a + skew * b for a, b in zip(p, q, strict=True)])


CASES = variants({}, {"skew": 0.0}, {"skew": 0.7})
AT_ZEROS = [{}]

# With λ = ⅓ the mixture is (3/8, 5/12, 5/24).
CONSTANTS = [({"skew": 1 / 3}, log(1 / 3) / 8 + 3 * log(9 / 5) / 4 + log(3 / 5) / 8)]

SIBLINGS = [({"skew": 0}, "reverse_kl")]
REFUSED = [({"skew": -0.1}, "skew must be greater than or equal to 0")]
