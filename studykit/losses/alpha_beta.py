"""α-β divergence -1/(αβ) Σ [p^α q^β - α/(α+β) p^(α+β) - β/(α+β) q^(α+β)]: a plane that holds both KLs.

Formula: `-1/(αβ) Σ [p^α q^β - α/(α+β) p^(α+β) - β/(α+β) q^(α+β)]`, and its limits where α, β or α + β is 0.

Code: ghwang-s/abkd@71d54613c3c4:distillation_llm/distillm/losses.py.

Agreement: tests/losses/test_against_releases.py::test_abkds_release_lacks_one_factor_in_its_limits and, for the general
case, tests/losses/test_all_losses.py::test_value_equals_the_slow_reference.

Differs: in the limits the release divides once by α (or β) where the limit divides twice, so that its loss is α (or β)
times as large; equal at 1, hence for both KLs.

Differs: scripts with the release's α and β were not seen; 0.2 and 0.7 are the defaults here.
"""

from torch import Tensor

from studykit.losses import LossInputs

NEAR_ZERO = 1e-4
"""Closer to α = 0, β = 0 or α + β = 0 the limit is taken: there rounding in float32 costs more than the limit does."""

LARGEST_EXPONENT = 60.0
"""Terms are held at exp(60): with a negative option they grow without bound where a probability is 0."""


def alpha_beta(x: LossInputs, *, alpha: float = 0.2, beta: float = 0.7) -> Tensor:
    """Return -1/(αβ) Σ [p^α q^β - α/(α+β) p^(α+β) - β/(α+β) q^(α+β)], p the teacher and q the student.

    (1, 0) is KL(p‖q), (0, 1) is KL(q‖p), (½, ½) four times the squared Hellinger distance Σ (√p - √q)² / 2.
    Prefer it to search between the KLs: α sets how much weight large gaps get, β how much the student's confidence.

    Args:
        x: `student_logp` and `teacher_logp`, [N, C].
        alpha: any number; the limit is taken at 0. With a negative alpha or beta the value is huge at zeros of p or q.
        beta: any number; the limit is taken at 0, and where alpha + beta is 0.

    Returns:
        float [N], nats, at least 0.

    Source:
        Wang et al. (2025), ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge Distillation via
        α-β-Divergence; the limits are those of Cichocki, Cruces, Amari (2011), Generalized Alpha-Beta
        Divergences.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> x = LossInputs(q.log(), p.log(), torch.tensor([0]))
        >>> alpha_beta(x, alpha=1, beta=1)                                 # ½ Σ (p - q)²
        tensor([0.0625])
    """
    p, q = x.teacher, x.student_logp
    if abs(alpha) < NEAR_ZERO and abs(beta) < NEAR_ZERO:
        return 0.5 * (p - q).square().sum(dim=-1)
    if abs(beta) < NEAR_ZERO:
        return _one_zero(p, q, alpha)
    if abs(alpha) < NEAR_ZERO:
        return _one_zero(q, p, beta)
    if abs(alpha + beta) < NEAR_ZERO:
        return (alpha * (q - p) + _exp(alpha * (p - q)) - 1).sum(dim=-1) / alpha**2
    both = alpha + beta
    terms = _exp(alpha * p + beta * q) - (alpha * _exp(both * p) + beta * _exp(both * q)) / both
    return -terms.sum(dim=-1) / (alpha * beta)


def _one_zero(first: Tensor, second: Tensor, power: float) -> Tensor:
    # The limit Σ [a^s log(a^s / b^s) - a^s + b^s] / s². Dropping 1/s² is right at s = 1 only.
    a, b = _exp(power * first), _exp(power * second)
    return (a * power * (first - second) - a + b).sum(dim=-1) / power**2


def _exp(exponent: Tensor) -> Tensor:
    return exponent.clamp(max=LARGEST_EXPONENT).exp()
