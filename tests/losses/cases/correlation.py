"""`correlation` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

import math

from ..case import Row, per_row, variants


def pearson(a: Row, b: Row) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    variances = [sum((x - mean) ** 2 for x in row) for row, mean in ((a, mean_a), (b, mean_b))]
    return covariance / math.sqrt(variances[0] * variances[1])


@per_row
def reference(p, q, y, top_k=32, value_weight=1.0, rank_weight=1.0, softness=1.0):
    def fold(k: int) -> tuple[Row, ...]:
        if len(p) <= k + 1:
            return p, q
        others = sorted((token for token in range(len(p)) if token != y), key=lambda token: -p[token])
        kept = [y, *others[: k - 1]]
        return tuple([row[t] for t in kept] + [sum(row) - sum(row[t] for t in kept)] for row in (p, q))

    def soft_ranks(row: Row) -> Row:
        powers = [mass ** (1 / softness) for mass in row]
        return [sum(a / (a + b) if a + b > 0 else 1 / 2 for b in powers) for a in powers]

    value = 1 - pearson(*fold(top_k))
    rank = 1 - pearson(*(soft_ranks(row) for row in fold(min(top_k, 64))))
    return value_weight * value + rank_weight * rank


CASES = variants({}, {"top_k": 4}, {"top_k": 3, "value_weight": 0.0, "softness": 0.5})
AT_ZEROS = [{}]

# Centred, p and its soft ranks (11/6, 4/3, 4/3) are as (2, -1, -1), q and (8/7, 31/14, 8/7) as (-1, 2, -1).
CONSTANTS = [({"rank_weight": 0.0}, 3 / 2), ({}, 3.0)]

REFUSED = [
    ({"top_k": 1}, "top_k must be greater than or equal to 2"),
    ({"softness": 0.0}, "softness must be greater than 0"),
]
