"""`comparative` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

import math
from math import log

from ..case import FORWARD, P, Q, Row, kl, normalised, variants


def reference(
    teacher, student, labels, temperature=2.0, top_k=16, partners=16, clip=10.0, teacher_weight=1.0, label_weight=1.0
):
    n, tokens = len(labels), range(len(teacher[0]))

    def likeliest(row: int) -> set[int]:
        others = sorted((t for t in tokens if t != labels[row]), key=lambda t: -teacher[row][t])
        return {labels[row], *others[: top_k - 1]}

    def softmax(difference: Row) -> Row:
        return normalised([math.exp(max(-clip, min(clip, d)) / temperature) for d in difference])

    def pair(i: int, j: int) -> float:
        union = sorted(likeliest(i) | likeliest(j))
        p, q = (softmax([math.log(rows[i][t] / rows[j][t]) for t in union]) for rows in (teacher, student))
        labelled = softmax([float(t == labels[i]) - float(t == labels[j]) for t in union])
        return temperature**2 * (teacher_weight * kl(p, q) + label_weight * kl(labelled, q))

    count = n - 1 if partners is None else min(partners, n - 1)
    distances = [1 + math.floor(step * (n - 1) / count) for step in range(count)]
    return [sum(pair(i, (i + d) % n) for d in distances) / count for i in range(n)]


CASES = [
    *variants({"label_weight": 0.0}, {"label_weight": 0.0, "top_k": 3, "partners": 2, "clip": 2.0}),
    *variants({}, {"top_k": 3, "temperature": 3.0}, zero_value=False, zero_gradient=False),
]

# Against a uniform second position the differences are log p and -log p, up to a constant.
CONSTANT_ROWS = [P, [1 / 3] * 3], [Q, [1 / 3] * 3]
INVERSE = 0.2 * log(0.2 * 13 / 6) + 0.4 * log(0.4 * 13) + 0.4 * log(0.4 * 13 / 6)  # (2, 4, 4)/10, (6, 1, 6)/13
LABELS = [(log(8 / 3) + log(4 / 9) + log(8 / 3)) / 3, (log(13 / 18) + log(13 / 3) + log(13 / 18)) / 3]
CONSTANTS = [
    ({"temperature": 1.0, "label_weight": 0.0}, [FORWARD, INVERSE]),
    ({"temperature": 1.0, "teacher_weight": 0.0}, LABELS),
    ({"temperature": 1.0}, [FORWARD + LABELS[0], INVERSE + LABELS[1]]),
]

REFUSED = [
    ({"partners": 0}, "partners must be greater than or equal to 1"),
    ({"temperature": 0.0}, "temperature must be greater than 0"),
    ({"top_k": 0}, "top_k must be greater than or equal to 1"),
    ({"clip": 0.0}, "clip must be greater than 0"),
]
