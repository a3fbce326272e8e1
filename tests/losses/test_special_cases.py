"""Where one loss becomes another, where it has a bound, and where a limit must be met without a jump."""

import math

import pytest
import torch
from torch import Tensor

from studykit.losses import LossInputs, get_loss

from .case import CATEGORIES, Case, inputs, values, with_zeros
from .cases import reference


def value(name: str, seed: int = 0, **options) -> Tensor:
    return values(get_loss(name, **options), *inputs(seed))


def gradient(name: str, seed: int = 0, **options) -> Tensor:
    logits, teacher_logp, target = inputs(seed)
    return torch.autograd.grad(values(get_loss(name, **options), logits, teacher_logp, target).sum(), logits)[0]


def test_skew_half_and_jensen_shannon():
    halves = (value("skew_forward_kl", skew=0.5) + value("skew_reverse_kl", skew=0.5)) / 2
    torch.testing.assert_close(halves, value("jsd"))


def test_adaptive_kl_with_the_whole_mass_in_the_head_is_forward_kl_in_float32_too():
    """The sum of 50,000 float32 probabilities is not 1 to the last bit."""
    logits, teacher_logp, target = inputs(categories=50_000)
    x = LossInputs(logits.float().log_softmax(-1), teacher_logp.float(), target)
    torch.testing.assert_close(
        get_loss("adaptive_kl", mu=1.0).per_token(x), get_loss("forward_kl").per_token(x), rtol=1e-4, atol=0
    )


def test_adaptive_kl_head_of_exactly_mu_is_not_lost_to_rounding():
    """0.2 + 0.1 is more than 0.3 in floating point. Gaps: 0.1 twice in the head, 0.2 in the tail."""
    p = torch.tensor([[0.2, *[0.1] * 8]], dtype=torch.float64).log()
    q = torch.tensor([[0.3, 0.2, *[0.5 / 7] * 7]], dtype=torch.float64).log()
    x = LossInputs(q, p, torch.tensor([0]))
    mean = (get_loss("forward_kl").per_token(x) + get_loss("reverse_kl").per_token(x)) / 2
    torch.testing.assert_close(get_loss("adaptive_kl", mu=0.3).per_token(x), mean)


def test_adaptive_kl_holds_its_weights_constant():
    logits, teacher_logp, target = inputs()
    p, q = teacher_logp.exp(), logits.detach().softmax(-1)
    first = p.argmax(-1, keepdim=True)
    head = ((p - q).abs().gather(1, first) / (p - q).abs().sum(-1, keepdim=True)).squeeze(1)
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target)
    frozen = head * get_loss("forward_kl").per_token(x) + (1 - head) * get_loss("reverse_kl").per_token(x)
    torch.testing.assert_close(gradient("adaptive_kl", mu=0.0), torch.autograd.grad(frozen.sum(), logits)[0])


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.7), (1.5, -0.4), (0, 0.6), (0.5, -0.5), (0, 0)])
def test_alpha_beta_with_sides_and_options_exchanged_is_the_same(alpha, beta):
    logits, teacher_logp, target = inputs()
    student_logp = logits.detach().log_softmax(-1)
    there = get_loss("alpha_beta", alpha=alpha, beta=beta).per_token(LossInputs(student_logp, teacher_logp, target))
    back = get_loss("alpha_beta", alpha=beta, beta=alpha).per_token(LossInputs(teacher_logp, student_logp, target))
    torch.testing.assert_close(there, back)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("limit", "direction"),
    [
        ((0.6, 0.0), (0, 1)),
        ((1.0, 0.0), (0, 1)),
        ((0.0, 0.6), (1, 0)),
        ((0.0, 1.0), (1, 0)),
        ((0.5, -0.5), (1, 0)),
        ((-0.5, 0.5), (0, 1)),
        ((0.0, 0.0), (1, 2)),
    ],
)
def test_alpha_beta_reaches_its_limits(limit, direction, sign):
    def at(distance: float) -> tuple[Tensor, ...]:
        alpha, beta = (end + sign * distance * step for end, step in zip(limit, direction, strict=True))
        return tuple(f("alpha_beta", alpha=alpha, beta=beta).detach() for f in (value, gradient))

    for end, near, far in zip(at(0), at(1e-3), at(1e-2), strict=True):
        assert (near - end).norm() < 0.02 * end.norm()
        assert 0.05 < (near - end).norm() / (far - end).norm() < 0.2  # a tenth of the way, a tenth of the gap


@pytest.mark.parametrize(("beta", "end"), [(1e-4, "forward_kl"), (1 - 1e-4, "reverse_kl")])
def test_only_the_rescaled_jsd_is_continuous_at_its_ends(beta, end):
    torch.testing.assert_close(value("jsd", beta=beta, rescale=True), value(end), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(gradient("jsd", beta=beta, rescale=True), gradient(end), rtol=1e-2, atol=1e-3)
    assert value("jsd", beta=beta).max() < 1e-3 < value(end).min()


def test_decoupled_weighted_by_the_mass_outside_the_label_is_forward_kl():
    logits, teacher_logp, target = inputs()
    outside = 1 - teacher_logp.exp().gather(1, target[:, None]).squeeze(1)
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target)
    label, others = (get_loss("decoupled_kl", alpha=a, beta=1.0 - a).per_token(x) for a in (1.0, 0.0))
    torch.testing.assert_close(label + outside * others, get_loss("forward_kl").per_token(x))


def test_decoupled_learns_nothing_of_the_others_from_a_teacher_sure_of_the_label():
    logits, teacher_logp, target = inputs()
    sure = with_zeros(teacher_logp, torch.ones(teacher_logp.shape).scatter(1, target[:, None], 0).bool())
    assert (values(get_loss("decoupled_kl", alpha=0.0), logits, sure, target) == 0).all()
    torch.testing.assert_close(values(get_loss("decoupled_kl"), logits, sure, target), value("cross_entropy"))


@pytest.mark.parametrize("skew", [0.1, 0.5])
@pytest.mark.parametrize("name", ["skew_forward_kl", "skew_reverse_kl"])
def test_skewed_divergences_are_largest_where_no_mass_is_shared(name, skew):
    apart = torch.tensor([[0.0, -1e5], [-1e5, 0.0]])
    x = LossInputs(apart, apart.flip(1), torch.tensor([0, 1]))
    torch.testing.assert_close(get_loss(name, skew=skew).per_token(x), torch.full((2,), -math.log(skew)))


def test_total_variation_is_one_where_no_mass_is_shared():
    apart = torch.tensor([[0.0, -1e5], [-1e5, 0.0]])
    x = LossInputs(apart, apart.flip(1), torch.tensor([0, 1]))
    assert get_loss("total_variation").per_token(x).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("top_k", [2, 3, 5])
def test_correlation_folds_to_the_label_the_likeliest_others_and_the_rest(top_k):
    logits, teacher_logp, target = inputs()
    student_logp = logits.log_softmax(-1)
    loss = get_loss("correlation", top_k=top_k)
    for row in range(len(target)):
        ranking = teacher_logp[row].argsort(descending=True).tolist()
        ranking.remove(target[row])
        kept, rest = [target[row].item(), *ranking[: top_k - 1]], ranking[top_k - 1 :]
        student, teacher = (
            torch.cat([logp[row, kept], logp[row, rest].logsumexp(0, keepdim=True)])[None]
            for logp in (student_logp, teacher_logp)
        )
        dense = LossInputs(student_logp[[row]], teacher_logp[[row]], target[[row]])
        torch.testing.assert_close(
            loss.per_token(LossInputs(student, teacher, torch.tensor([0]))), loss.per_token(dense)
        )


def test_correlation_ranks_no_more_than_64_categories():
    logits, teacher_logp, target = inputs(categories=200)
    many, fewer = (get_loss("correlation", top_k=k, value_weight=0.0) for k in (100, 64))
    torch.testing.assert_close(values(many, logits, teacher_logp, target), values(fewer, logits, teacher_logp, target))
    many, fewer = (get_loss("correlation", top_k=k, rank_weight=0.0) for k in (100, 64))
    assert (values(many, logits, teacher_logp, target) != values(fewer, logits, teacher_logp, target)).any()


@pytest.mark.parametrize("teacher_categories", [CATEGORIES - 4, CATEGORIES + 7])
def test_sorted_l1_compares_vocabularies_of_different_size(teacher_categories):
    logits, _, target = inputs()
    _, teacher_logp, _ = inputs(categories=teacher_categories)
    rows = teacher_logp.exp().tolist(), logits.softmax(-1).tolist()
    expected = reference(Case("sorted_l1"), *rows, target.tolist())
    loss = get_loss("sorted_l1")
    assert values(loss, logits, teacher_logp, target).tolist() == pytest.approx(expected)
    renamed = teacher_logp[:, torch.randperm(teacher_categories, generator=torch.Generator().manual_seed(0))]
    torch.testing.assert_close(values(loss, logits, renamed, target), values(loss, logits, teacher_logp, target))
    torch.autograd.gradcheck(lambda z: values(loss, z, teacher_logp, target), logits)


def test_sorted_l1_at_the_teacher_is_cross_entropy():
    logits, _, target = inputs()
    x = LossInputs(logits.log_softmax(-1), logits.detach().log_softmax(-1).flip(1), target)
    pair = [get_loss(name).per_token(x) for name in ("sorted_l1", "cross_entropy")]
    torch.testing.assert_close(*pair)
    torch.testing.assert_close(*(torch.autograd.grad(v.sum(), logits, retain_graph=True)[0] for v in pair))
