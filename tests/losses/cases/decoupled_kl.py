"""`decoupled_kl` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

from math import log

from ..case import kl, normalised, per_row, variants


@per_row
def reference(p, q, y, alpha=1.0, beta=0.5):
    others = [[mass for token, mass in enumerate(row) if token != y] for row in (p, q)]
    label_part = kl([p[y], 1 - p[y]], [q[y], 1 - q[y]])
    return alpha * label_part + beta * kl(normalised(others[0]), normalised(others[1]))


CASES = variants({}, {"alpha": 0.3, "beta": 2.0})
AT_ZEROS = [{}]

LABEL_SHARE = log(4) / 2 + log(4 / 7) / 2  # (½, ½) from (⅛, ⅞)
OTHERS = log(7 / 12) / 2 + log(7 / 2) / 2  # (½, ½) from (6/7, 1/7)
CONSTANTS = [({}, LABEL_SHARE + OTHERS / 2), ({"alpha": 0.0, "beta": 2.0}, 2 * OTHERS)]
