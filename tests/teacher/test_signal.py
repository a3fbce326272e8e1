"""Teachers known on a few tokens only: folded top-k and samples, against folding written out in probabilities."""

import pytest
import torch
from one_loss import loss_and_sums
from torch import Tensor

from studykit.losses import LOSSES, LossInputs, get_loss
from studykit.teacher import TeacherSignal

N, V, H, K = 7, 11, 5, 4
# `comparative` compares positions column by column, and folded columns mean another token in every row.
FOLDABLE = [
    name
    for name, loss in ((name, get_loss(name)) for name in LOSSES.names())
    if loss.needs_teacher and not loss.needs_shared_categories
]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def student(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    hidden, weight, bias = normal(N, H, seed=seed), normal(V, H, seed=seed + 1), normal(V, seed=seed + 2)
    return hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def labels() -> Tensor:
    return torch.randint(V, (N,), generator=torch.Generator().manual_seed(9))


def fold(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Fold to the listed tokens and one tail, position by position, in probabilities."""
    rows = []
    for row, kept in zip(logits.softmax(-1), ids.tolist(), strict=True):
        others = [token for token in range(len(row)) if token not in kept]
        folded = torch.stack([*(row[token] for token in kept), row[others].sum()]) ** (1 / temperature)
        rows.append(folded / folded.sum())
    return torch.stack(rows).log()


@pytest.mark.parametrize("chunk", [1, 3, N])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("name", FOLDABLE)
def test_a_top_k_teacher_equals_an_independent_folding(name, temperature, chunk):
    parts, target, loss = student(), labels(), get_loss(name)
    hidden, weight, bias = parts
    teacher_logits = normal(N, V, seed=5).float().double()
    logp, ids = teacher_logits.log_softmax(-1).topk(K)
    signal = TeacherSignal.from_top_k(ids, logp)
    value, _ = loss_and_sums(parts, signal, target, loss, N, temperature=temperature, size=chunk)
    folded = [fold(side, ids, temperature) for side in (hidden @ weight.T + bias, teacher_logits)]
    category = [row.index(y) if y in row else K for row, y in zip(ids.tolist(), target.tolist(), strict=True)]
    expected = get_loss(name).per_token(LossInputs(folded[0], folded[1], torch.tensor(category))).sum() / N
    # The signal keeps the teacher in float32: the two agree to its rounding, 6e-8 of log-probabilities around 3.
    torch.testing.assert_close(value, expected, rtol=3e-6, atol=3e-6)
    inputs = [hidden, weight, bias]
    for ours, plain in zip(torch.autograd.grad(value, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(ours, plain, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("name", FOLDABLE)
def test_folding_at_k_equal_to_the_vocabulary_is_the_dense_loss(name):
    parts, target, loss = student(), labels(), get_loss(name)
    logits = normal(N, V, seed=5)
    logp, ids = logits.log_softmax(-1).topk(V)
    folded, _ = loss_and_sums(parts, TeacherSignal.from_top_k(ids, logp), target, loss, N)
    dense, _ = loss_and_sums(parts, TeacherSignal.from_logits(logits), target, loss, N)
    torch.testing.assert_close(folded, dense, rtol=1e-5, atol=1e-6)  # float32 teacher


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl"])
def test_a_tail_lost_to_half_precision_is_not_impossible(name):
    """Here the kept tokens round to a sum past 1; an impossible tail would make KL(q‖p) tens of thousands of nats."""
    logits = torch.full((N, V), -11.0, dtype=torch.float64)
    logits[:, :2] = torch.tensor([0.6, 0.0])
    logp, ids = logits.log_softmax(-1).topk(2)
    tail = logits.log_softmax(-1)[:, 2:].logsumexp(-1, keepdim=True)
    parts, target, loss = student(), labels(), get_loss(name)
    assert logp.half().double().exp().sum(-1).min() > 1
    exact, known, unknown = (
        loss_and_sums(parts, signal, target, loss, N)[0].item()
        for signal in (
            TeacherSignal.from_top_k(ids, logp, tail),
            TeacherSignal.from_top_k(ids, logp.half(), tail.half()),
            TeacherSignal.from_top_k(ids, logp.half()),
        )
    )
    assert known == pytest.approx(exact, abs=5e-3)  # half precision
    assert 0 < unknown < 3 * exact


def test_a_folded_kl_is_never_negative_and_never_above_the_dense_one():
    for seed in range(50):
        parts, logits = student(seed=3 * seed), normal(N, V, seed=seed) * 3
        logp, ids = logits.log_softmax(-1).topk(K)
        for name in ("forward_kl", "reverse_kl"):
            values = [
                loss_and_sums(parts, signal, labels(), get_loss(name), N)[0].item()
                for signal in (TeacherSignal.from_top_k(ids, logp), TeacherSignal.from_logits(logits))
            ]
            assert -1e-6 < values[0] < values[1] + 1e-6  # float32 teacher


def test_the_gradient_from_a_sampled_teacher_is_unbiased():
    """The mean over many draws approaches the dense gradient as 1 / sqrt(draws)."""
    (hidden, weight, bias), target, logits = student(), labels(), normal(N, V, seed=5)
    loss = get_loss("forward_kl")

    def gradient(signal: TeacherSignal) -> Tensor:
        value, _ = loss_and_sums((hidden, weight, bias), signal, target, loss, 1)
        return torch.autograd.grad(value, hidden)[0]

    draws = torch.multinomial(
        logits.softmax(-1).repeat(1000, 1), 16, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    counts = torch.nn.functional.one_hot(draws, V).sum(1).reshape(1000, N, V)
    ids = torch.arange(V).expand(N, V)
    dense = gradient(TeacherSignal.from_logits(logits))
    one = gradient(TeacherSignal.from_samples(ids, counts[0]))
    mean = torch.stack([gradient(TeacherSignal.from_samples(ids, count)) for count in counts]).mean(0)
    assert (one - dense).abs().max() > 0.1
    assert (mean - dense).abs().max() < 0.04  # 5 standard errors: 0.25 nats a draw / sqrt(1000)


def test_places_without_a_sample_do_not_count_for_the_token_they_name():
    parts, target = student(), labels()
    ids, counts = torch.tensor([[3, 5, 0]] * N), torch.tensor([[2, 1, 0]] * N)
    values = [
        loss_and_sums(parts, TeacherSignal.from_samples(i, c), target, get_loss("forward_kl"), N)[0]
        for i, c in ((ids, counts), (ids[:, :2], counts[:, :2]))
    ]
    torch.testing.assert_close(*values)
