"""Forward KL(p‖q) of teacher p from student q: covers all that the teacher may generate.

Formula: `KL(p‖q) = Σ p (log p - log q)` over the vocabulary at every supervised token, `p = softmax(z_teacher / T)`, `q
= softmax(z_student / T)`.

Agreement: tests/losses/test_against_peers.py::test_each_kl_equals_trls_at_its_end_of_beta in value and gradient.

Agreement: tests/losses/test_against_releases.py::test_a_released_cross_entropy_form_has_the_gradient_of_the_kl for the
form `-Σ p log q`, which the releases of MiniLLM and DistiLLM return: its value is larger by the entropy of p.
"""

from torch import Tensor

from studykit.losses import LossInputs, expectation

TAKES_SAMPLES = True


def forward_kl(x: LossInputs) -> Tensor:
    """Return KL(p‖q) = Σ p (log p - log q), p the teacher and q the student.

    The usual choice on fixed data. It is a true divergence, 0 at q = p; the cross-entropy form that some releases
    return has the same gradient and another value.

    Args:
        x: `student_logp` and `teacher_logp`, [N, C].

    Returns:
        float [N], nats, at least 0.

    Source:
        Hinton, Vinyals, Dean (2015), Distilling the Knowledge in a Neural Network, section 2.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> forward_kl(LossInputs(q.log(), p.log(), torch.tensor([0])))    # ½ log 2 + ½ log ⅔
        tensor([0.1438])
    """
    return expectation(x.teacher, x.teacher - x.student_logp)


def value_and_grad(x: LossInputs) -> tuple[Tensor, Tensor]:
    """Return KL(p‖q) [N] and its derivative in log q [N, C], -p."""
    p = x.teacher.exp()
    return (p * (x.teacher - x.student_logp)).sum(dim=-1), p.neg_()
