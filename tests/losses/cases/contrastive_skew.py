"""`contrastive_skew` in a slow loop over probabilities, worked out by hand, and what its definition promises."""

from math import log

from ..case import Row, kl, variants


def reference(teacher, student, labels, skew=0.1, author=None):
    def value(p: Row, q: Row, by_student: bool) -> float:
        if by_student:
            return kl(q, [(1 - skew) * a + skew * b for a, b in zip(p, q, strict=True)])
        return kl(p, [skew * a + (1 - skew) * b for a, b in zip(p, q, strict=True)])

    writers = [0] * len(labels) if author is None else author
    return [value(p, q, writer == 2) for p, q, writer in zip(teacher, student, writers, strict=True)]


CASES = variants({}, {"skew": 0.0}, {"skew": 0.7})
AT_ZEROS = [{}]

# Without an author no token is the student's: skew forward KL at λ = ⅓.
CONSTANTS = [({"skew": 1 / 3}, log(2) / 2 + log(3 / 7) / 4 + log(3 / 2) / 4)]

REFUSED = [({"skew": 1.0}, "skew must be less than 1"), ({"skw": 0.1}, "did you mean 'skew'")]
