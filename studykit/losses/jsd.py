"""Generalised Jensen-Shannon divergence β KL(p‖m) + (1-β) KL(q‖m), m = βp + (1-β)q: between forward and reverse KL.

Formula: `β KL(p‖m) + (1-β) KL(q‖m)`, `m = β p + (1-β) q`, at every supervised token; KL(p‖q) at β = 0 and KL(q‖p) at β
= 1.

Code: the authors' was not seen. huggingface/trl@7310b81fbd40:trl/experimental/gkd/gkd_trainer.py.

Agreement: tests/losses/test_against_peers.py::test_jsd_equals_trls_in_value_and_gradient,
tests/losses/test_against_peers.py::test_the_chunked_head_equals_trls_loss_on_full_logits and, where Liger is installed,
tests/losses/test_against_peers.py::test_the_chunked_head_equals_ligers_fused_one.

Differs: trl divides by the supervised tokens of the micro-batch, here by those of the optimizer step.

Differs: `rescale` is of this kit. `js_distance` in jongwooko/distillm@17c0f98bc263:distillm/losses.py has 1 - β for β,
and 0.9 by default.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from studykit.losses import LossInputs, expectation, log_mixture
from studykit.losses.forward_kl import forward_kl
from studykit.losses.forward_kl import value_and_grad as forward_value_and_grad
from studykit.losses.reverse_kl import reverse_kl
from studykit.losses.reverse_kl import value_and_grad as reverse_value_and_grad


def jsd(x: LossInputs, *, beta: Annotated[float, Field(ge=0, le=1)] = 0.5, rescale: bool = False) -> Tensor:
    """Return β KL(p‖m) + (1-β) KL(q‖m) with m = βp + (1-β)q; β = 0 is KL(p‖q) and β = 1 is KL(q‖p).

    Prefer it on mixed or on-policy data: it is bounded by log 2 at β = ½ where the KLs are not.

    Args:
        x: `student_logp` and `teacher_logp`, [N, C].
        beta: weight of the teacher in the mixture, in [0, 1].
        rescale: divide by β(1-β). Without it the value goes to 0 as β goes to 0 or 1 and then jumps to the KL at the
            end itself, so that a sweep over β is a sweep over the learning rate too; with it both ends are continuous.

    Returns:
        float [N], nats, at least 0.

    Source:
        Agarwal et al. (2024), On-Policy Distillation of Language Models (GKD), section 2.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> logs = [a.log().clamp(min=-1e5) for a in (q, p)]
        >>> jsd(LossInputs(*logs, torch.tensor([0])))                      # log 2, its largest value
        tensor([0.6931])
    """
    if beta in (0, 1):
        return reverse_kl(x) if beta else forward_kl(x)
    p, q = x.teacher, x.student_logp
    m = log_mixture(q, p, beta)
    value = beta * expectation(p, p - m) + (1 - beta) * expectation(q, q - m)
    return value / (beta * (1 - beta)) if rescale else value


def value_and_grad(x: LossInputs, *, beta: float = 0.5, rescale: bool = False) -> tuple[Tensor, Tensor]:
    """Return the divergence [N] and its derivative in log q [N, C], (1-β) q (log q - log m)."""
    if beta in (0, 1):
        return reverse_value_and_grad(x) if beta else forward_value_and_grad(x)
    scale = 1 / (beta * (1 - beta)) if rescale else 1.0
    m = log_mixture(x.student_logp, x.teacher, beta)
    grad = (x.student_logp - m).mul_(x.student_logp.exp()).mul_((1 - beta) * scale)
    return grad.sum(dim=-1) + beta * scale * expectation(x.teacher, x.teacher - m), grad
