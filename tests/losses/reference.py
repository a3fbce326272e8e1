"""Every loss once more, slowly: loops over Python floats, straight from the definitions, sharing no code.

A reference takes rows of probabilities, p of the teacher and q of the student, and the labels; it returns one value
per row. None of them knows about log-probabilities, floors or tensors.
"""

import math
from collections.abc import Callable
from functools import wraps

Row = list[float]
REFERENCES: dict[str, Callable] = {}


def batch(function):
    REFERENCES[function.__name__] = function
    return function


def per_row(function):
    @wraps(function)
    def rows(teacher: list[Row], student: list[Row], labels: list[int], **options) -> Row:
        return [function(p, q, y, **options) for p, q, y in zip(teacher, student, labels, strict=True)]

    REFERENCES[function.__name__] = rows
    return function


def kl(a: Row, b: Row) -> float:
    return math.fsum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


def normalised(weights: Row) -> Row:
    total = math.fsum(weights)
    return [w / total for w in weights]


def mix(first: Row, second: Row, share: float) -> Row:
    return [(1 - share) * a + share * b for a, b in zip(first, second, strict=True)]


@per_row
def cross_entropy(p, q, y):
    return -math.log(q[y])


@per_row
def forward_kl(p, q, y):
    return kl(p, q)


@per_row
def reverse_kl(p, q, y):
    return kl(q, p)


@per_row
def jsd(p, q, y, beta=0.5, rescale=False):
    if beta == 0:
        return kl(p, q)
    if beta == 1:
        return kl(q, p)
    middle = mix(q, p, beta)
    value = beta * kl(p, middle) + (1 - beta) * kl(q, middle)
    return value / beta / (1 - beta) if rescale else value


@per_row
def skew_forward_kl(p, q, y, skew=0.1):
    return kl(p, [skew * a + (1 - skew) * b for a, b in zip(p, q, strict=True)])


@per_row
def skew_reverse_kl(p, q, y, skew=0.1):
    return kl(q, [(1 - skew) * a + skew * b for a, b in zip(p, q, strict=True)])


@per_row
def total_variation(p, q, y):
    return sum(max(a - b, 0.0) for a, b in zip(p, q, strict=True))  # what is missing equals what is too much


def head_share(p: Row, q: Row, mu: float) -> float:
    """Share of the gap that lies in the head of the teacher: its likeliest tokens, together at most mu."""
    by_mass = sorted(range(len(p)), key=lambda token: -p[token])
    head, mass = [by_mass[0]], p[by_mass[0]]
    for token in by_mass[1:]:
        mass += p[token]
        if mass > mu:
            break
        head.append(token)
    gap = [abs(a - b) for a, b in zip(p, q, strict=True)]
    return sum(gap[token] for token in head) / sum(gap)


@per_row
def adaptive_kl(p, q, y, mu=0.5):
    share = head_share(p, q, mu)
    return share * kl(p, q) + (1 - share) * kl(q, p)


@per_row
def alpha_beta(p, q, y, alpha=0.2, beta=0.7):
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


@per_row
def decoupled_kl(p, q, y, alpha=1.0, beta=0.5):
    others = [[mass for token, mass in enumerate(row) if token != y] for row in (p, q)]
    label_part = kl([p[y], 1 - p[y]], [q[y], 1 - q[y]])
    return alpha * label_part + beta * kl(normalised(others[0]), normalised(others[1]))


@per_row
def taid(p, q, y, schedule="adaptive", t_start=0.4):
    target = normalised([b ** (1 - t_start) * a**t_start for a, b in zip(p, q, strict=True)])
    return -math.fsum(t * math.log(b) for t, b in zip(target, q, strict=True))


@per_row
def curriculum_temperature(p, q, y, initial=2.0, scale_by_t2=False):
    value = kl(*(normalised([mass ** (1 / initial) for mass in row]) for row in (p, q)))
    return value * initial**2 if scale_by_t2 else value


def pearson(a: Row, b: Row) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    variances = [sum((x - mean) ** 2 for x in row) for row, mean in ((a, mean_a), (b, mean_b))]
    return covariance / math.sqrt(variances[0] * variances[1])


@per_row
def correlation(p, q, y, top_k=32, value_weight=1.0, rank_weight=1.0, softness=1.0):
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


@batch
def comparative(
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


@per_row
def sorted_l1(p, q, y, weight=1.5):
    rows = [sorted(row, reverse=True) + [0.0] * (max(len(p), len(q)) - len(row)) for row in (p, q)]
    return -math.log(q[y]) + weight * sum(abs(a - b) for a, b in zip(*rows, strict=True))


@batch
def policy_gradient(
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


@batch
def contrastive_skew(teacher, student, labels, skew=0.1, author=None):
    def value(p: Row, q: Row, by_student: bool) -> float:
        if by_student:
            return kl(q, [(1 - skew) * a + skew * b for a, b in zip(p, q, strict=True)])
        return kl(p, [skew * a + (1 - skew) * b for a, b in zip(p, q, strict=True)])

    writers = [0] * len(labels) if author is None else author
    return [value(p, q, writer == 2) for p, q, writer in zip(teacher, student, writers, strict=True)]
