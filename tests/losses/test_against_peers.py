"""The same numbers from other people's code: trl, transformers and Liger, where they are installed.

trl's GKD loss and Liger's fused one need no translation as to β: in all three m = βp + (1-β)q, the value is
β KL(p‖m) + (1-β) KL(q‖m), β = 0 is KL(p‖q) and β = 1 is KL(q‖p), and the temperature divides both sides' logits without
a factor of T². They differ in what surrounds it: both take logits of all positions, drop those labelled -100, and
return one number, the sum over the others divided by how many there are ("batchmean" in trl, which divides by the batch
where no labels are given).
"""

import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from one_loss import loss_and_sums
from torch import Tensor
from transformers.loss.loss_utils import ForCausalLMLoss

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


class _Trainer(SimpleNamespace):
    """What trl's loss of on-policy distillation reads of its trainer; γ = 0 weights all tokens alike."""

    temperature, iw_opd_gamma, iw_opd_epsilon = 1.0, 0.0, 1e-8
    model = SimpleNamespace(training=True)


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


@pytest.mark.parametrize(("name", "beta"), [("forward_kl", 0), ("reverse_kl", 1)])
@both_temperatures
def test_each_kl_equals_trls_at_its_end_of_beta(trl_loss, name, beta, temperature):
    student, teacher = normal(BATCH, TIME, CATEGORIES, seed=0).requires_grad_(), normal(BATCH, TIME, CATEGORIES, seed=1)
    theirs = trl_loss(student, teacher, labels=labels(), beta=beta, temperature=temperature)
    kept = labels() != -100
    sides = [(logits[kept] / temperature).log_softmax(-1) for logits in (student, teacher)]
    ours = get_loss(name).per_token(LossInputs(sides[0], sides[1], labels()[kept])).mean()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in (ours, theirs)))


def test_cross_entropy_equals_that_of_transformers():
    """Each row is a micro-batch: both divide by the tokens of the whole step."""
    logits = normal(BATCH, TIME, CATEGORIES, seed=0).requires_grad_()
    count = int((labels()[:, 1:] != -100).sum())
    each = [ForCausalLMLoss(logits[[row]], labels()[[row]], CATEGORIES, torch.tensor(count)) for row in range(BATCH)]
    theirs = torch.stack(each).sum()
    kept = labels()[:, 1:] != -100
    x = LossInputs(logits[:, :-1][kept].log_softmax(-1), None, labels()[:, 1:][kept])
    ours = get_loss("cross_entropy").per_token(x).sum() / count
    torch.testing.assert_close(ours, theirs.double())
    # transformers computes in float32
    torch.testing.assert_close(*(torch.autograd.grad(v, logits)[0] for v in (ours, theirs)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("teacher_categories", [CATEGORIES - 3, CATEGORIES + 4])
def test_sorted_l1_equals_trls_universal_logit_loss(teacher_categories):
    """Theirs is a mean over answers of means over tokens: the same where answers have the same number of tokens."""
    gold = peer("trl.experimental.gold.gold_trainer", reason="compares with trl, which is not installed")
    config = SimpleNamespace(
        uld_crossentropy_weight=1.0,
        uld_distillation_weight=1.5,
        uld_student_temperature=1.0,
        uld_teacher_temperature=1.0,
        uld_skip_student_eos=False,
        uld_skip_teacher_eos=False,
        use_extended_uld=False,
        uld_token_merge_strategy="bayesian",
    )
    answer = torch.randint(CATEGORIES, (BATCH, TIME), generator=torch.Generator().manual_seed(9))
    answer[:, :2] = -100
    student = normal(BATCH, TIME, CATEGORIES, seed=0).requires_grad_()
    teacher = normal(BATCH, TIME, teacher_categories, seed=1)
    theirs = gold.ULDLoss(config)(student, teacher, answer, answer, answer, answer)
    sides = [side[:, 1:-1].flatten(0, 1).log_softmax(-1) for side in (student, teacher)]
    ours = get_loss("sorted_l1", weight=1.5).per_token(LossInputs(sides[0], sides[1], answer[:, 2:].flatten())).mean()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in (ours, theirs)))


def test_the_policy_gradient_equals_that_of_trls_on_policy_distillation():
    """Without its weights along the answer, γ = 0. The values differ: theirs is a reward times log q, ours a ratio."""
    module = peer("trl.experimental.iw_opd.iw_opd_trainer", reason="compares with trl, which is not installed")
    trainer = _Trainer(_metrics=defaultdict(lambda: defaultdict(list)))
    student, teacher = normal(BATCH, TIME, CATEGORIES, seed=0).requires_grad_(), normal(BATCH, TIME, CATEGORIES, seed=1)
    kept, tokens = labels() != -100, labels().clamp(min=0)
    of_tokens = teacher.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    theirs = module.IWOPDTrainer._compute_iw_opd_loss(trainer, student, tokens, labels(), of_tokens)
    x = LossInputs(student[kept].log_softmax(-1), teacher[kept].log_softmax(-1), tokens[kept])
    ours = get_loss("policy_gradient").per_token(x).mean()
    gradients = [torch.autograd.grad(value, student)[0] for value in (ours, theirs)]
    assert gradients[0].abs().max() > 0.01
    torch.testing.assert_close(*gradients)
