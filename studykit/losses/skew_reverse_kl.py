"""Skew reverse KL(q‖(1-λ)p + λq): reverse KL that stays finite where the teacher has no mass.

Formula: `KL(q‖(1-λ)p + λq)` at every supervised token.

Code: jongwooko/distillm@17c0f98bc263:distillm/losses.py, and
jongwooko/distillm@17c0f98bc263:scripts/gpt2/distillm/train_0.1B_1.5B.sh.

Agreement: tests/losses/test_against_releases.py::test_distillms_skew_reverse_kl_is_this_one in value and gradient.

Differs: that script has skew forward KL, here skew reverse KL is the default; λ is 0.1 in both.

Differs: the release adds cross-entropy on a plain corpus; here there is none.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from studykit.losses import LossInputs, expectation, log_mixture
from studykit.losses.reverse_kl import value_and_grad as reverse_value_and_grad


def skew_reverse_kl(x: LossInputs, *, skew: Annotated[float, Field(ge=0, lt=1)] = 0.1) -> Tensor:
    """Return KL(q‖(1-λ)p + λq), q the student, p the teacher and λ the skew; λ = 0 is KL(q‖p).

    Prefer it to reverse KL on the student's own samples: a student far off the teacher costs at most -log λ.

    Args:
        x: `student_logp` and `teacher_logp`, [N, C].
        skew: weight λ of the student in the mixture, in [0, 1); at 1 nothing of the teacher would be left.

    Returns:
        float [N], nats, at least 0.

    Source:
        Ko, Kim, Chen, Yun (2024), DistiLLM: Towards Streamlined Distillation for Large Language Models, section 3.1.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> x = LossInputs(q.log(), p.log(), torch.tensor([0]))
        >>> skew_reverse_kl(x, skew=0.5)                          # ¼ log(¼ / ⅜) + ¾ log(¾ / ⅝)
        tensor([0.0354])
    """
    return expectation(x.student_logp, x.student_logp - log_mixture(x.teacher, x.student_logp, skew))


def value_and_grad(x: LossInputs, *, skew: float = 0.1) -> tuple[Tensor, Tensor]:
    """Return the divergence [N] and its derivative in log q [N, C], q (log q/m + 1 - λ q/m) with m = (1-λ)p + λq."""
    if skew == 0:
        return reverse_value_and_grad(x)  # q/m has no bound then
    q = x.student_logp.exp()
    ratio = x.student_logp - log_mixture(x.teacher, x.student_logp, skew)
    grad = ratio.exp().mul_(-skew).add_(1).add_(ratio).mul_(q)
    return (q * ratio).sum(dim=-1), grad
