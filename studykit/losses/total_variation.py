"""Total variation ½ Σ |p - q|: the share of mass that is in the wrong place, symmetric and at most 1."""

from torch import Tensor

from studykit.losses import LossInputs


def total_variation(x: LossInputs) -> Tensor:
    """Return ½ Σ |p - q|, p the teacher and q the student.

    Prefer it when noise in the teacher's small probabilities should not matter. Its gradient vanishes where student
    and teacher share no mass, so that a student far away learns slowly: mix in cross-entropy there.

    Args:
        x: `student_logp` and `teacher_logp`, [N, C].

    Returns:
        float [N], a share of mass in [0, 1], not nats.

    Source:
        Wen, Li, Du, Mou (2023), f-Divergence Minimization for Sequence-Level Knowledge Distillation.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> total_variation(LossInputs(q.log(), p.log(), torch.tensor([0])))
        tensor([0.2500])
    """
    return 0.5 * (x.teacher.exp() - x.student_logp.exp()).abs().sum(dim=-1)
