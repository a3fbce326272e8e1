"""The same numbers from other people's code: trl's GKD loss and Liger's fused one, where they are installed.

Neither needs translation as to β: in all three m = βp + (1-β)q, the value is β KL(p‖m) + (1-β) KL(q‖m), β = 0 is
KL(p‖q) and β = 1 is KL(q‖p), and the temperature divides both sides' logits without a factor of T². They differ in
what surrounds it: both take logits of all positions, drop those labelled -100, and return one number, the sum over
the others divided by how many there are ("batchmean" in trl, which divides by the batch where no labels are given).
"""

import warnings
from typing import Any

import pytest
import torch
from one_loss import loss_and_sums
from torch import Tensor

from studykit.losses import LossInputs, get_loss
from studykit.teacher import TeacherSignal

BATCH, TIME, CATEGORIES, WIDTH = 2, 5, 11, 4
BETAS = [0, 0.1, 0.5, 0.9, 1]
TEMPERATURES = [1.0, 2.0]
IGNORED = torch.tensor([[True, True, False, False, False], [True, False, False, False, True]])

sweep = pytest.mark.parametrize("beta", BETAS)
both_temperatures = pytest.mark.parametrize("temperature", TEMPERATURES)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels() -> Tensor:
    token = torch.randint(CATEGORIES, (BATCH, TIME), generator=torch.Generator().manual_seed(9))
    return token.masked_fill(IGNORED, -100)


def peer(module: str, reason: str) -> Any:
    """Import another package's module: what it has to say about itself on the way is no failure of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(module, reason=reason, exc_type=ImportError)


@pytest.fixture(scope="module")
def trl_loss():
    module = peer("trl.experimental.gkd.gkd_trainer", reason="compares with trl, which is not installed")
    return module.GKDTrainer.generalized_jsd_loss


@pytest.fixture(scope="module")
def liger_loss():
    reason = "compares with liger-kernel, which is not installed or wants triton"
    return peer("liger_kernel.chunked_loss.jsd_loss", reason=reason).LigerFusedLinearJSDLoss


@sweep
@both_temperatures
def test_jsd_equals_trls_in_value_and_gradient(trl_loss, beta, temperature):
    student, teacher = normal(BATCH, TIME, CATEGORIES, seed=0).requires_grad_(), normal(BATCH, TIME, CATEGORIES, seed=1)
    theirs = trl_loss(student, teacher, labels=labels(), beta=beta, temperature=temperature)
    kept = labels() != -100
    sides = [(logits[kept] / temperature).log_softmax(-1) for logits in (student, teacher)]
    ours = get_loss("jsd", beta=beta).per_token(LossInputs(sides[0], sides[1], labels()[kept])).mean()
    assert theirs > 0.01
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in (ours, theirs)))


@sweep
@both_temperatures
def test_the_chunked_head_equals_trls_loss_on_full_logits(trl_loss, beta, temperature):
    hidden, weight = normal(BATCH, TIME, WIDTH, seed=2).requires_grad_(), normal(CATEGORIES, WIDTH, seed=3)
    weight.requires_grad_()
    teacher, kept = normal(BATCH, TIME, CATEGORIES, seed=1), labels() != -100
    theirs = trl_loss(hidden @ weight.T, teacher, labels=labels(), beta=beta, temperature=temperature)
    signal, loss = TeacherSignal.from_logits(teacher[kept]), get_loss("jsd", beta=beta)
    ours, _ = loss_and_sums(
        (hidden[kept], weight, None), signal, labels()[kept], loss, int(kept.sum()), temperature=temperature, size=2
    )
    torch.testing.assert_close(ours, theirs)
    for part in (hidden, weight):
        pair = [torch.autograd.grad(value, part, retain_graph=True)[0] for value in (ours, theirs)]
        torch.testing.assert_close(*pair)


def test_trl_without_labels_divides_by_the_batch_and_not_by_the_tokens(trl_loss):
    """So that its number is that of a position times the length."""
    student, teacher = normal(BATCH, TIME, CATEGORIES, seed=0), normal(BATCH, TIME, CATEGORIES, seed=1)
    logp = [logits.flatten(0, 1).log_softmax(-1) for logits in (student, teacher)]
    each = get_loss("jsd").per_token(LossInputs(logp[0], logp[1], torch.zeros(BATCH * TIME, dtype=torch.long)))
    torch.testing.assert_close(trl_loss(student, teacher), each.mean() * TIME)


@pytest.mark.parametrize("kd_ratio", [1.0, 0.3])
@sweep
@both_temperatures
def test_the_chunked_head_equals_ligers_fused_one(liger_loss, beta, temperature, kd_ratio):
    """Liger adds its chunks up in float32; it too keeps cross-entropy at temperature 1."""
    parts = normal(BATCH * TIME, WIDTH, seed=2), normal(CATEGORIES, WIDTH, seed=3), normal(CATEGORIES, seed=4)
    hidden, weight, bias = (part.requires_grad_() for part in parts)
    teacher = normal(BATCH * TIME, WIDTH + 1, seed=5), normal(CATEGORIES, WIDTH + 1, seed=6)
    target = labels().flatten()
    fused = liger_loss(
        weight_hard_loss=1 - kd_ratio,
        weight_soft_loss=kd_ratio,
        beta=beta,
        temperature=temperature,
        compiled=False,
        chunk_size=3,
    )
    theirs = fused(hidden, weight, *teacher, target, student_bias=bias)
    kept = target != -100
    signal, loss = TeacherSignal.from_hidden(teacher[0][kept], teacher[1]), get_loss("jsd", beta=beta)
    ours, _ = loss_and_sums(
        (hidden[kept], weight, bias),
        signal,
        target[kept],
        loss,
        int(kept.sum()),
        kd_ratio=kd_ratio,
        temperature=temperature,
        size=2,
    )
    torch.testing.assert_close(ours.float(), theirs)
    for part in (hidden, weight, bias):
        pair = [torch.autograd.grad(value, part, retain_graph=True)[0] for value in (ours, theirs)]
        torch.testing.assert_close(*pair)
