"""`skew_forward_kl` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

from math import log

from ..case import kl, per_row, variants


@per_row
def reference(p, q, y, skew=0.1):
    return kl(p, [skew * a + (1 - skew) * b for a, b in zip(p, q, strict=True)])


CASES = variants({}, {"skew": 0.0}, {"skew": 0.7})
AT_ZEROS = [{}]

# With λ = ⅓ the mixture is (1/4, 7/12, 1/6).
CONSTANTS = [({"skew": 1 / 3}, log(2) / 2 + log(3 / 7) / 4 + log(3 / 2) / 4)]

SIBLINGS = [({"skew": 0}, "forward_kl")]
REFUSED = [({"skew": 1.0}, "skew must be less than 1"), ({"skw": 0.1}, "did you mean 'skew'")]
