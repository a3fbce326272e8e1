"""`total_variation` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

from ..case import per_row, variants


@per_row
def reference(p, q, y):
    return sum(max(a - b, 0.0) for a, b in zip(p, q, strict=True))  # what is missing equals what is too much


CASES = variants({})
AT_ZEROS = [{}]

CONSTANTS = [({}, 1 / 2)]  # gaps 3/8, 1/2 and 1/8
