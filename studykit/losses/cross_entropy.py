"""Cross-entropy -log q(y) of the label: supervised fine-tuning.

Formula: `-log q(y)` for the token y of the answer, summed over the supervised tokens and divided by their number in the
optimizer step.

Agreement: tests/losses/test_against_peers.py::test_cross_entropy_equals_that_of_transformers in value and gradient,
over two micro-batches of different lengths.
"""

import torch
from torch import Tensor

from studykit.losses import LossInputs

NEEDS_TEACHER = False


def cross_entropy(x: LossInputs) -> Tensor:
    """Return -log q(y), the negative log-likelihood of the label.

    Prefer it when the labels are all there is; with a teacher it is mixed in through `kd_ratio`.

    Args:
        x: `student_logp` [N, C] and `target` [N]; the teacher is not looked at.

    Returns:
        float [N], nats, at least 0.

    Example:
        >>> import torch
        >>> x = LossInputs(torch.tensor([[0.25, 0.75]]).log(), None, torch.tensor([0]))
        >>> cross_entropy(x)                                      # log 4
        tensor([1.3863])
    """
    return -x.student_logp.gather(1, x.target[:, None]).squeeze(1)


def value_and_grad(x: LossInputs) -> tuple[Tensor, Tensor]:
    """Return -log q(y) [N] and its derivative in the student's log-probabilities [N, C]: -1 at the label."""
    grad = torch.zeros_like(x.student_logp).scatter_(1, x.target[:, None], -1.0)
    return cross_entropy(x), grad
