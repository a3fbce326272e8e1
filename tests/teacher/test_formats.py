"""A sampled teacher: draws follow its distribution, are drawn once and stored, and give the forward KL on average."""

import hashlib
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from one_loss import loss_and_sums
from torch import Tensor
from unpadding import unpadded

from studykit.chat import encode
from studykit.collate import collate, each_example_once
from studykit.losses import get_loss
from studykit.teacher import TeacherSignal
from studykit.teacher.cached import CachedTeacher
from studykit.teacher.formats import Samples
from studykit.teacher.live import LiveTeacher

V, N = 85, 12


@pytest.fixture
def open_cached(tiny_model, tokenizer, empty_cache):
    """Open the teacher with a cache of samples, as a separate process would."""

    def make(n=N, content="a", seed=7):
        live = LiveTeacher(tiny_model(seed=seed, spread=30.0).eval(), tokenizer, V)
        return CachedTeacher(lambda: live, content, partial(Samples, n))

    return make


@pytest.fixture
def batches(examples, tokenizer):
    """Make the batches in which a teacher reads the first `count` examples."""

    def make(count=12, size=4):
        return each_example_once(encode(examples[:count], tokenizer, 64), size, tokenizer.pad_token_id)

    return make


def spread_out(signal: TeacherSignal, positions: int) -> Tensor:
    """Return a signal's probabilities over the vocabulary, as a loss sees them by the category of each label."""
    spread = torch.zeros(positions, V)
    for token in range(V):
        _, logp, category = signal.inputs(
            slice(None), torch.zeros(positions, V), torch.full((positions,), token, dtype=torch.long), 1.0
        )
        is_kept = category < logp.shape[1] - 1
        spread[is_kept, token] = logp.exp().gather(1, category[:, None])[is_kept, 0]
    return spread


def keys(count: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(count)]


def distribution() -> Tensor:
    """Return log-probabilities, some of them of 0."""
    logits = 2 * torch.randn(V, generator=torch.Generator().manual_seed(5))
    logits[::4] = -torch.inf
    return logits.log_softmax(-1)


def sampled(format_: Samples, logp: Tensor, names: list[str]) -> TeacherSignal:
    """Return the signal of sequences with these names, each with the positions of `logp` [n, V]."""
    noise = format_.draw_noise(names, [len(logp)] * len(names))
    columns = format_.encode(logp.repeat(len(names), 1), noise)
    parts = format_.to_bytes(columns, [len(logp)] * len(names))
    return format_.decode_signal([np.frombuffer(part, dtype=np.uint8) for part in parts], torch.device("cpu"))


@pytest.mark.parametrize("n", [1, N, 255])
def test_counts_sum_to_the_number_of_draws_at_every_position(n, open_cached, batches):
    teacher = open_cached(n)
    teacher.prepare(unpadded(batches()))
    for batch in batches():
        counts = n * spread_out(teacher.signal(batch), len(batch.target))
        torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-4)
        torch.testing.assert_close(counts.sum(-1), torch.full((len(batch.target),), float(n)), rtol=0, atol=1e-3)
        if n > 1:
            assert (counts > 0.5).sum(-1).float().mean() > 1.2


def test_the_most_draws_of_a_sure_teacher_fit_into_a_byte():
    logp = torch.full((2, V), -torch.inf)
    logp[0, 3] = logp[1, 84] = 0
    spread = spread_out(sampled(Samples(255, V), logp, keys(1)), 2)
    assert spread.nonzero().tolist() == [[0, 3], [1, 84]]
    assert spread.sum() == 2


@pytest.mark.parametrize("n", [1, N])
def test_frequencies_over_many_positions_are_the_distribution(n):
    logp, count = distribution(), 4000
    counts = n * spread_out(sampled(Samples(n, V), logp[None], keys(count)), count).double().sum(0)
    expected, draws = logp.double().exp(), n * count
    assert (counts[::4] == 0).all()
    bound = 5 * (draws * expected * (1 - expected)).sqrt() + 1e-6
    assert ((counts - draws * expected).abs() <= bound).all()


def test_positions_and_sequences_are_drawn_independently():
    logp = distribution().expand(2000, V)
    format_ = Samples(1, V)
    first, second = (spread_out(sampled(format_, logp, [name]), 2000).argmax(-1) for name in keys(2))
    chance = distribution().exp().square().sum().item()
    for left, right in ((first, second), (first[1:], first[:-1])):
        assert abs((left == right).double().mean().item() - chance) < 5 * (chance * (1 - chance) / 2000) ** 0.5


def test_the_mean_gradient_over_many_sequences_is_the_dense_one():
    generator = torch.Generator().manual_seed(1)
    hidden, weight, logits = (torch.randn(*size, generator=generator) for size in ((3, 8), (V, 8), (3, V)))
    logp, target, loss = (2 * logits).log_softmax(-1), torch.tensor([1, 2, 3]), get_loss("forward_kl")
    hidden.requires_grad_()

    def gradient(signal: TeacherSignal) -> Tensor:
        value, _ = loss_and_sums((hidden, weight, None), signal, target, loss, 1)
        return torch.autograd.grad(value, hidden)[0].double()

    format_, names = Samples(6, V), keys(1500)
    many = torch.stack([gradient(sampled(format_, logp, [name])) for name in names])
    dense, error = gradient(TeacherSignal.from_logits(logp)), many.std(0) / len(names) ** 0.5
    assert ((many.mean(0) - dense).abs() < 4.5 * error).all()
    assert error.max() < 0.05 * dense.abs().max()
    assert (many[0] - dense).abs().max() > 20 * error.max()


def test_asking_twice_gives_the_same(open_cached, batches):
    teacher = open_cached()
    teacher.prepare(unpadded(batches()))
    for batch in batches():
        first, again = (spread_out(teacher.signal(batch), len(batch.target)) for _ in range(2))
        assert torch.equal(first, again)


def test_a_second_instance_reads_from_disk(open_cached, batches):
    first, second = open_cached(), open_cached()
    first.prepare(unpadded(batches()))
    second.prepare(unpadded(batches()))
    assert first.cost["teacher_tokens"] == sum(int(batch.attention_mask.sum()) for batch in batches())
    assert second.cost["teacher_tokens"] == 0
    assert second.cost["teacher_check_tokens"] > 0
    for batch in batches():
        left, right = (spread_out(teacher.signal(batch), len(batch.target)) for teacher in (first, second))
        assert torch.equal(left, right)


@pytest.mark.parametrize("change", [{"content": "b"}, {"n": N + 1}])
def test_another_teacher_or_number_of_draws_shares_nothing(change, open_cached, batches):
    open_cached().prepare(unpadded(batches()))
    other = open_cached(**change)
    other.prepare(unpadded(batches()))
    assert other.cost["teacher_tokens"] > 0


@pytest.mark.parametrize("n", [N, 64])
def test_a_wrong_live_teacher_is_noticed(n, open_cached, batches):
    open_cached(n).prepare(unpadded(batches()))
    with pytest.raises(RuntimeError, match="disagrees with the live teacher"):
        open_cached(n, seed=8).prepare(unpadded(batches()))


def test_rows_come_in_the_order_of_the_batch(open_cached, batches, examples, tokenizer):
    teacher, encoded = open_cached(), encode(examples[:12], tokenizer, 64)
    teacher.prepare(unpadded(batches()))
    orders = [2, 5, 11, 5], [5, 11, 5, 2]
    forth, back = (
        spread_out(teacher.signal(batch), len(batch.target))
        for batch in (collate(encoded, rows, tokenizer.pad_token_id) for rows in orders)
    )
    counts = encoded.response_tokens[orders[0]].tolist()
    parts = dict(zip("abcd", forth.split(counts), strict=True))
    assert torch.equal(torch.cat([parts[name] for name in "bcda"]), back)
    assert torch.equal(parts["b"], parts["d"])
    assert not any(torch.equal(x, y) for x, y in pairwise([parts["a"][:1], parts["b"][:1], parts["c"][:1]]))


def test_the_loss_is_that_of_a_teacher_of_counts(open_cached, batches):
    """KL(c ‖ q) with c the counts divided by N, over all tokens."""
    teacher = open_cached()
    teacher.prepare(unpadded(batches()))
    generator = torch.Generator().manual_seed(3)
    for batch in batches():
        count = len(batch.target)
        hidden, weight = torch.randn(count, 16, generator=generator), torch.randn(V, 16, generator=generator)
        signal = teacher.signal(batch)
        value, _ = loss_and_sums((hidden, weight, None), signal, batch.target, get_loss("forward_kl"), count)
        p, logq = spread_out(signal, count).double(), (hidden @ weight.T).double().log_softmax(-1)
        expected = (torch.xlogy(p, p) - p * logq).sum() / count
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)
