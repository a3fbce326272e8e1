"""`curriculum_temperature` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

from math import log, sqrt

from ..case import kl, normalised, per_row, variants


@per_row
def reference(p, q, y, initial=2.0, scale_by_t2=False):
    value = kl(*(normalised([mass ** (1 / initial) for mass in row]) for row in (p, q)))
    return value * initial**2 if scale_by_t2 else value


CASES = variants({}, {"initial": 4.0, "scale_by_t2": True}, moves=True)
AT_ZEROS = [{}]

# √p is as (√2, 1, 1), √q as (1, √6, 1).
AT_TWO = log((2 + sqrt(6)) / (2 + sqrt(2))) + (sqrt(2) * log(sqrt(2)) - log(sqrt(6))) / (2 + sqrt(2))
CONSTANTS = [({"initial": 2.0}, AT_TWO)]

REFUSED = [
    ({"initial": 1.0}, "low < initial < high"),
    ({"low": 0.0}, "low must be greater than 0"),
    ({"learning_rate": 0.0}, "learning_rate must be greater than 0"),
]
