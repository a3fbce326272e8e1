"""`jsd` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

from math import log

from ..case import kl, mix, per_row, variants


@per_row
def reference(p, q, y, beta=0.5, rescale=False):
    if beta == 0:
        return kl(p, q)
    if beta == 1:
        return kl(q, p)
    middle = mix(q, p, beta)
    value = beta * kl(p, middle) + (1 - beta) * kl(q, middle)
    return value / beta / (1 - beta) if rescale else value


CASES = variants({}, {"beta": 0}, {"beta": 0.1, "rescale": True}, {"beta": 1})
AT_ZEROS = [{}]

P_TO_MIDDLE = log(8 / 5) / 2 + log(1 / 2) / 4 + log(4 / 3) / 4  # (p + q) / 2 is (5/16, 1/2, 3/16)
Q_TO_MIDDLE = log(2 / 5) / 8 + 3 * log(3 / 2) / 4 + log(2 / 3) / 8
CONSTANTS = [
    ({}, (P_TO_MIDDLE + Q_TO_MIDDLE) / 2),
    ({"rescale": True}, 2 * (P_TO_MIDDLE + Q_TO_MIDDLE)),
]

SIBLINGS = [
    ({"beta": 0}, "forward_kl"),
    ({"beta": 1}, "reverse_kl"),
    ({"beta": 0.0, "rescale": True}, "forward_kl"),
    ({"beta": 1.0, "rescale": True}, "reverse_kl"),
]
REFUSED = [
    ({"beta": 1.5}, "beta must be less than or equal to 1, received 1.5"),
    ({"beta": "0.5"}, "beta must be a valid number, received '0.5'"),
    ({"rescale": 1}, "rescale must be a valid boolean"),
]
