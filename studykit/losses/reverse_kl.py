"""Reverse KL(q‖p) of student q from teacher p: stays where the teacher is likely.

Formula: `KL(q‖p) = Σ q (log q - log p)` over the vocabulary at every supervised token.

Code: jongwooko/distillm@17c0f98bc263:distillm/losses.py has it as `reverse_kl`, a baseline.

Agreement: tests/losses/test_against_peers.py::test_each_kl_equals_trls_at_its_end_of_beta in value and gradient.

Differs: the paper minimises KL(q‖p) of whole answers that the student samples (`minillm`); this loss, like the
baseline, takes it token by token.
"""

from torch import Tensor

from studykit.losses import LossInputs, expectation


def reverse_kl(x: LossInputs) -> Tensor:
    """Return KL(q‖p) = Σ q (log q - log p), q the student and p the teacher.

    Prefer it when the student is too small to cover the teacher, most of all on the student's own samples.

    Args:
        x: `student_logp` and `teacher_logp`, [N, C].

    Returns:
        float [N], nats, at least 0; very large where the student puts mass on a teacher's zero.

    Source:
        Gu, Dong, Wei, Huang (2024), MiniLLM, equation 1.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> reverse_kl(LossInputs(q.log(), p.log(), torch.tensor([0])))    # ¼ log ½ + ¾ log 1½
        tensor([0.1308])
    """
    return expectation(x.student_logp, x.student_logp - x.teacher)


def value_and_grad(x: LossInputs) -> tuple[Tensor, Tensor]:
    """Return KL(q‖p) [N] and its derivative in log q [N, C], q (log q - log p + 1)."""
    q = x.student_logp.exp()
    gap = (x.student_logp - x.teacher).mul_(q)
    return gap.sum(dim=-1), gap.add_(q)
