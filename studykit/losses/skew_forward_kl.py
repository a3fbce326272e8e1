"""Skew forward KL(p‖λp + (1-λ)q): forward KL whose gradient stays bounded where the student has no mass.

Formula: `KL(p‖λp + (1-λ)q)` at every supervised token.

Agreement: tests/losses/test_against_releases.py::test_a_released_cross_entropy_form_has_the_gradient_of_the_kl: the
release leaves out the entropy of p, which changes the value alone.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from studykit.losses import LossInputs, expectation, log_mixture


def skew_forward_kl(x: LossInputs, *, skew: Annotated[float, Field(ge=0, lt=1)] = 0.1) -> Tensor:
    """Return KL(p‖λp + (1-λ)q), p the teacher, q the student and λ the skew; λ = 0 is KL(p‖q).

    Prefer it to forward KL on the teacher's own samples or with a small student: it is at most -log λ.

    Args:
        x: `student_logp` and `teacher_logp`, [N, C].
        skew: weight λ of the teacher in the mixture, in [0, 1); at 1 nothing of the student would be left.

    Returns:
        float [N], nats, at least 0.

    Source:
        Ko, Kim, Chen, Yun (2024), DistiLLM: Towards Streamlined Distillation for Large Language Models, section 3.1.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> x = LossInputs(q.log(), p.log(), torch.tensor([0]))
        >>> skew_forward_kl(x, skew=0.5)                          # ½ log(½ / ⅜) + ½ log(½ / ⅝)
        tensor([0.0323])
    """
    return expectation(x.teacher, x.teacher - log_mixture(x.student_logp, x.teacher, skew))


def value_and_grad(x: LossInputs, *, skew: float = 0.1) -> tuple[Tensor, Tensor]:
    """Return the divergence [N] and its derivative in log q [N, C], -(1-λ) p q / m with m = λp + (1-λ)q."""
    ratio = x.teacher - log_mixture(x.student_logp, x.teacher, skew)  # log p / m
    grad = (ratio + x.student_logp).exp_().mul_(skew - 1)
    return expectation(x.teacher, ratio), grad
