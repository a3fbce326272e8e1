"""Decoupled KL α KL(p_y, 1-p_y) + β KL(p̂‖q̂) of the label's share and of the classes other than the label y.

Formula: `α KL((p_y, 1-p_y)‖(q_y, 1-q_y)) + β KL(p̂‖q̂)`, hats: without the label y, renormalised.

Code: megvii-research/mdistiller@e8c5bb331e78:mdistiller/distillers/DKD.py, defaults in
megvii-research/mdistiller@a08d46f10d61:mdistiller/engine/cfg.py.

Agreement: tests/losses/test_against_releases.py::test_dkds_release_is_this_loss_times_t_squared in value and gradient.

Differs: the release multiplies by T², adds cross-entropy with weight 1, ramps the loss up over 20 epochs, and has β = 8
and T = 4 for images; here β is 0.5 and T 1, as in the baseline for language models
ohashi3399/TAID@12c78335af20:src/distil_losses/dkd.py.
"""

import torch
from torch import Tensor

from studykit.losses import LOG_FLOOR, LossInputs, expectation


def decoupled_kl(x: LossInputs, *, alpha: float = 1.0, beta: float = 0.5) -> Tensor:
    """Return α KL of (p_y, 1-p_y) from (q_y, 1-q_y) + β KL(p̂‖q̂), hats: without the label y, renormalised.

    Forward KL is α = 1 and β = 1 - p_y, so a sure teacher's ranking of the other classes hardly counts in it. Prefer
    this when that ranking is worth learning.

    Args:
        x: `student_logp` and `teacher_logp` [N, C], and `target` [N].
        alpha: weight of the label's share.
        beta: weight of the other classes. Where the teacher's mass outside the label is exactly 0 it says nothing
            about them, and this part is 0.

    Returns:
        float [N], nats, at least 0.

    Source:
        Zhao et al. (2022), Decoupled Knowledge Distillation, equation 7.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.5, 0.125, 0.375]])
        >>> x = LossInputs(q.log(), p.log(), torch.tensor([0]))
        >>> decoupled_kl(x, alpha=1.0, beta=1.0)     # the label agrees; (½, ½) from (¼, ¾): ½ log 2 + ½ log ⅔
        tensor([0.1438])
    """
    label = x.target[:, None]
    p_two, p_others = _split(x.teacher, label)
    q_two, q_others = _split(x.student_logp, label)
    # Nothing but floors outside the label sums to LOG_FLOOR + log(C - 1); renormalising that would invent a uniform.
    informed = p_two[:, 1] > 0.99 * LOG_FLOOR
    others = expectation(p_others, p_others - q_others)
    return alpha * expectation(p_two, p_two - q_two) + beta * others.where(informed, 0)


def _split(logp: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    rest = logp.scatter(1, label, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([logp.gather(1, label), rest], dim=1), (logp - rest).scatter(1, label, LOG_FLOOR)
