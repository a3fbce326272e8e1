"""The data or the student's answers, drawn anew for every micro-batch."""

import pytest

from studykit.losses import Author
from studykit.rollouts import get_rollout

AUTHORS = (Author.STUDENT,)
OPTIONS = {"lmbda": 1.0}
REFUSED = {"lmbda": (-0.1, 1.1)}
METHOD_OPTIONS = {"lmbda": 0.6}


@pytest.mark.parametrize(("lmbda", "own"), [(0.0, 0), (1.0, 30)])
def test_lmbda_at_its_ends_is_the_data_or_the_student(lmbda, own, batch, context):
    rollout, ours, given = get_rollout("mixed", lmbda=lmbda, max_new_tokens=2), context(), batch([1])
    assert sum(rollout(given, ours) is not given for _ in range(30)) == own


def test_lmbda_is_the_share_of_micro_batches_that_are_the_students(batch, context):
    rollout, ours, given = get_rollout("mixed", lmbda=0.25, max_new_tokens=1), context(), batch([1])
    own = sum(rollout(given, ours) is not given for _ in range(400))
    assert abs(own - 100) < 44  # 5 standard deviations of Binomial(400, 1/4)
