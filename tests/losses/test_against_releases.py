"""What the authors' releases compute, written again from what docs/provenance.md names, against the losses here.

Where a release and its paper differ, a test says by how much: in the value alone, in a factor, or in the gradient.
"""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from studykit.losses import LossInputs, get_loss

from .case import inputs


def both_sides(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, LossInputs]:
    """Return student logits that require a gradient, the probabilities of teacher and student, and a loss's inputs."""
    logits, teacher_logp, target = inputs(seed)
    return logits, teacher_logp.exp(), logits.softmax(-1), LossInputs(logits.log_softmax(-1), teacher_logp, target)


def ours(name: str, x: LossInputs, **options: Any) -> Tensor:
    return get_loss(name, **options).per_token(x)


def grad(value: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), logits, retain_graph=True)[0]


@pytest.mark.parametrize(
    ("name", "options", "share"), [("forward_kl", {}, 0.0), ("skew_forward_kl", {}, 0.1)], ids=["kd", "distillm"]
)
def test_a_released_cross_entropy_form_has_the_gradient_of_the_kl(name, options, share):
    logits, p, q, x = both_sides()
    released = -(p * (share * p + (1 - share) * q).log()).sum(-1)
    entropy = -(p * p.log()).sum(-1)
    torch.testing.assert_close(released, ours(name, x, **options) + entropy)
    torch.testing.assert_close(grad(released, logits), grad(ours(name, x, **options), logits))


def test_distillms_skew_reverse_kl_is_this_one():
    logits, p, q, x = both_sides()
    released = F.kl_div((0.9 * p + 0.1 * q).log(), q, reduction="none").sum(-1)
    torch.testing.assert_close(released, ours("skew_reverse_kl", x))
    torch.testing.assert_close(grad(released, logits), grad(ours("skew_reverse_kl", x), logits))


def test_a_mixture_held_constant_changes_the_gradient_of_the_skew_reverse_kl():
    logits, p, q, x = both_sides()
    held = (q * (q / (0.9 * p + 0.1 * q.detach())).log()).sum(-1)
    torch.testing.assert_close(held, ours("skew_reverse_kl", x))
    assert (grad(held, logits) - grad(ours("skew_reverse_kl", x), logits)).abs().max() > 1e-3


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.4, 0.0), (0.0, 1.0), (0.0, 0.6), (0.5, -0.5), (0.0, 0.0)])
def test_abkds_release_lacks_one_factor_in_its_limits(alpha, beta):
    logits, p, q, x = both_sides()
    if alpha == beta == 0:
        released, factor = (q / p).log().square().sum(-1) / 2, 1.0
    elif beta == 0:
        a, b = p**alpha, q**alpha
        released, factor = (a * (a / b).log() - a + b).sum(-1) / alpha, alpha
    elif alpha == 0:
        a, b = q**beta, p**beta
        released, factor = (a * (a / b).log() - a + b).sum(-1) / beta, beta
    else:
        ratio = (p / q) ** alpha
        released, factor = (ratio - ratio.log() - 1).sum(-1) / alpha, alpha
    expected = factor * ours("alpha_beta", x, alpha=alpha, beta=beta)
    torch.testing.assert_close(released, expected)
    torch.testing.assert_close(grad(released, logits), grad(expected, logits))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dkds_release_is_this_loss_times_t_squared(temperature):
    logits, teacher_logp, target = inputs()
    label = F.one_hot(target, logits.shape[1]).bool()
    z_teacher, z_student = teacher_logp / temperature, logits / temperature
    shares = [torch.stack([z.softmax(-1)[label], (z.softmax(-1) * ~label).sum(-1)], -1) for z in (z_teacher, z_student)]
    others = [z.masked_fill(label, -1000.0).log_softmax(-1) for z in (z_teacher, z_student)]
    parts = [
        F.kl_div(shares[1].log(), shares[0], reduction="none").sum(-1),
        F.kl_div(others[1], others[0], reduction="none", log_target=True).sum(-1),
    ]
    released = temperature**2 * (1.0 * parts[0] + 8.0 * parts[1])
    x = LossInputs(z_student.log_softmax(-1), z_teacher.log_softmax(-1), target)
    expected = temperature**2 * ours("decoupled_kl", x, beta=8.0)
    torch.testing.assert_close(released, expected)
    torch.testing.assert_close(grad(released, logits), grad(expected, logits))


def test_akls_release_is_this_loss_and_a_gap_in_another_order_is_not():
    logits, p, q, x = both_sides()
    falling, order = p.sort(-1, descending=True)
    tail = falling.cumsum(-1) > 0.5
    tail[:, 0] = False
    gap = (p - q.detach()).abs()

    def weighted(gap: Tensor) -> Tensor:
        share = (gap * tail).sum(-1) / gap.sum(-1)
        return (1 - share) * ours("forward_kl", x) + share * ours("reverse_kl", x)

    released = weighted(gap.gather(1, order))
    torch.testing.assert_close(released, ours("adaptive_kl", x))
    torch.testing.assert_close(grad(released, logits), grad(ours("adaptive_kl", x), logits))
    assert (weighted(gap) - released).abs().max() > 0.01


def test_minillms_release_counts_a_tokens_own_reward():
    _, _, _, x = both_sides()
    reward = (x.teacher - x.student_logp).gather(1, x.target[:, None])[:, 0].detach()
    total, sums = torch.zeros((), dtype=torch.float64), []
    for value in reward.flip(0):
        total = value + 0.95 * total
        sums.append(total)
    released = torch.stack(sums[::-1]) / torch.arange(len(reward), 0, -1)
    options = {"discount": 0.95, "length_normalised": True}
    torch.testing.assert_close(-ours("policy_gradient", x, **options), released)
    one_step = ours("reverse_kl", x) - ours("policy_gradient", x, one_step=True, **options)
    later = torch.stack([total - value for total, value in zip(sums[::-1], reward, strict=True)])
    torch.testing.assert_close(one_step, later / torch.arange(len(reward) - 1, -1, -1).clamp(min=1))
    assert (one_step - released).abs().max() > 0.1


def test_the_correlations_are_those_of_scipy():
    logits, p, q, x = both_sides()
    rows = list(zip(p.numpy(), q.detach().numpy(), strict=True))
    value = [1 - stats.pearsonr(*row).statistic for row in rows]
    rank = [1 - stats.spearmanr(*row).statistic for row in rows]
    np.testing.assert_allclose(ours("correlation", x, rank_weight=0.0).detach(), value)
    hard = ours("correlation", x, value_weight=0.0, softness=1e-4).detach()
    np.testing.assert_allclose(hard, rank, atol=1e-6)
    uncentred = 1 - F.cosine_similarity(p, q, dim=-1)
    assert (uncentred.detach() - torch.tensor(value)).abs().max() > 0.1
    assert grad(ours("correlation", x), logits).abs().max() > 1e-3


def test_ranks_by_sorting_have_no_gradient():
    logits, _, _, x = both_sides()
    assert not logits.softmax(-1).argsort(-1).argsort(-1).double().requires_grad
    assert grad(ours("correlation", x, value_weight=0.0), logits).abs().max() > 1e-3
