"""`forward_kl` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

from ..case import FORWARD, kl, per_row, variants


@per_row
def reference(p, q, y):
    return kl(p, q)


CASES = variants({})
AT_ZEROS = [{}]

CONSTANTS = [({}, FORWARD)]
