"""`policy_gradient` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

import math
from math import log

from ..case import REVERSE, kl, variants


def reference(
    teacher,
    student,
    labels,
    discount=0.0,
    one_step=False,
    length_normalised=False,
    whiten=False,
    teacher_share=0.0,
    clip=None,
    sequence=None,
):
    n = len(labels)
    sequence = [0] * n if sequence is None else sequence

    def reward(row: int) -> float:
        p, q = teacher[row][labels[row]], student[row][labels[row]]
        return -100.0 if p == 0 else min(100.0, max(-100.0, math.log(p) - math.log(q)))

    def advantage(row: int) -> float:
        own = [other for other in range(n) if sequence[other] == sequence[row]]
        left = own[own.index(row) :]
        counted = [(k, other) for k, other in enumerate(left) if (k > 0 or not one_step) and discount**k > 0]
        total = math.fsum(discount**k * reward(other) for k, other in counted)
        return total / len(counted) if length_normalised and counted else total

    advantages = [advantage(row) for row in range(n)]
    if whiten:
        mean = math.fsum(advantages) / n
        spread = math.sqrt(math.fsum((a - mean) ** 2 for a in advantages) / n)
        advantages = [(a - mean) / spread if spread > 0 else 0.0 for a in advantages]

    def value(row: int) -> float:
        p, q = teacher[row][labels[row]], student[row][labels[row]]
        ratio = q / ((1 - teacher_share) * q + teacher_share * p)
        nearer = ratio if clip is None else min(1 + clip, max(1 - clip, ratio))
        surrogate = -min(ratio * advantages[row], nearer * advantages[row])
        return surrogate + (ratio * kl(student[row], teacher[row]) if one_step else 0.0)

    return [value(row) for row in range(n)]


# At q = p each reward is log p - log q = 0, to the last bit, so that whitening finds nothing to amplify, and there the
# exact one-step term is at its minimum: value and gradient are promised to be zero. Rewards and the denominator of ρ
# are held constant, and rewards have both signs.
SURROGATE = {"differentiable": False, "nonnegative": False}
ANSWERS = {"discount": 1.0, "length_normalised": True}
CASES = [
    *variants({}, {"discount": 0.5}, ANSWERS, {"teacher_share": 0.2, "clip": 0.1}, **SURROGATE),
    *variants({"one_step": True}, {**ANSWERS, "one_step": True, "teacher_share": 0.2}, **SURROGATE),
    # Whitening divides by the deviation, which the reference sums in another order.
    *variants({"whiten": True}, {**ANSWERS, "one_step": True, "whiten": True}, rounding=1e-6, **SURROGATE),
]
AT_ZEROS = [{}, {"discount": 1.0, "teacher_share": 0.2, "clip": 0.1}]

# The reward is log 4. A sample from ⅓p + ⅔q has the label with ¼, so that ρ = ½.
CONSTANTS = [
    ({}, -log(4)),
    ({"teacher_share": 1 / 3}, -log(4) / 2),
    ({"one_step": True}, REVERSE),
    ({"one_step": True, "teacher_share": 1 / 3}, REVERSE / 2),
]

REFUSED = [
    ({"discount": 1.1}, "received 1.1"),
    ({"discount": -0.1}, "received -0.1"),
    ({"teacher_share": 1.0}, "received 1.0"),
    ({"teacher_share": -0.2}, "received -0.2"),
    ({"clip": 0.0}, "received 0.0"),
    ({"clip": float("nan")}, "received nan"),
    ({"discont": 1.0}, "did you mean 'discount'"),
]
