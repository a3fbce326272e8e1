"""Adaptive KL w_h KL(p‖q) + w_l KL(q‖p), weighted by where the gap |p - q| lies: in the teacher's head or its tail.

Formula: `w_h KL(p‖q) + w_l KL(q‖p)`; p sorted from the likeliest down, the head is as long as its mass is at most μ,
and w_h is its share of `Σ |p - sg(q)|`.

Code: wutaiqiang/LLM_KD_AKL@91853fbc69a3:AKL.py.

Agreement: tests/losses/test_against_releases.py::test_akls_release_is_this_loss_and_a_gap_in_another_order_is_not in
value and gradient.

Differs: nothing was found between paper, release and this loss. The baseline in a copy of TAID's release,
ohashi3399/TAID@12c78335af20:src/distil_losses/adaptive_kl.py, has its mask in sorted order and the gap in that of the
vocabulary, which gives other weights, as the same test shows.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from studykit.losses import LossInputs
from studykit.losses.forward_kl import forward_kl
from studykit.losses.reverse_kl import reverse_kl

ROUNDING = 1e-6
"""Tolerance of the sum: a head of mass exactly mu, and all of the mass for mu = 1, is not cut short by rounding."""


def adaptive_kl(x: LossInputs, *, mu: Annotated[float, Field(ge=0, le=1)] = 0.5) -> Tensor:
    """Return w_h KL(p‖q) + w_l KL(q‖p), w_h and w_l the shares of Σ |p - q| in the head and the tail of p.

    Prefer it when training is short: forward KL fits the head first and reverse KL the tail. The weights are constants
    to the gradient.

    Args:
        x: `student_logp` and `teacher_logp`, [N, C].
        mu: the head is the longest run of the likeliest categories whose teacher mass is at most mu, in [0, 1]; the
            likeliest one always belongs to it, also at mu = 0.

    Returns:
        float [N], nats, at least 0.

    Source:
        Wu et al. (2024), Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language Models.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.25, 0.5, 0.25]])
        >>> x = LossInputs(q.log(), p.log(), torch.tensor([0]))
        >>> adaptive_kl(x, mu=0.6)               # gaps ¼ in the head, ⅕ + 1/20 in the tail: the mean of both KLs
        tensor([0.1433])
    """
    head = _head_share(x.teacher.exp(), x.student_logp.detach().exp(), mu)
    return head * forward_kl(x) + (1 - head) * reverse_kl(x)


def _head_share(p: Tensor, q: Tensor, mu: float) -> Tensor:
    # Gap and mask are both in the teacher's sorted order; in different orders the weights would be meaningless.
    p_sorted, order = p.sort(dim=-1, descending=True, stable=True)
    in_head = p_sorted.cumsum(dim=-1) <= mu + ROUNDING
    in_head[:, 0] = True
    gap = (p_sorted - q.gather(1, order)).abs()
    total = gap.sum(dim=-1)
    return (gap * in_head).sum(dim=-1) / total.where(total > 0, 1)  # without a gap both KLs are 0, whatever the share
