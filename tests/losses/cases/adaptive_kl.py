"""`adaptive_kl` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

from ..case import FORWARD, REVERSE, Row, kl, per_row, variants


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
def reference(p, q, y, mu=0.5):
    share = head_share(p, q, mu)
    return share * kl(p, q) + (1 - share) * kl(q, p)


CASES = variants({}, {"mu": 0.0}, {"mu": 0.8}, differentiable=False)

# Gaps 3/8, 1/2 and 1/8; the head at μ = ½ is the first category.
CONSTANTS = [
    ({"mu": 0.5}, 3 / 8 * FORWARD + 5 / 8 * REVERSE),
    ({"mu": 0.75}, 7 / 8 * FORWARD + 1 / 8 * REVERSE),
]

SIBLINGS = [({"mu": 1.0}, "forward_kl")]
REFUSED = [({"mu": 2}, "mu must be less than or equal to 1")]
