"""Derivatives that are written out, against autograd."""

import pytest
import torch
from torch import Tensor

from studykit.discovery import options_of
from studykit.losses import LOG_FLOOR, LOSSES, LossInputs

from .case import Case, inputs, with_zeros
from .cases import CASES

CLOSED = [case for case in CASES if case.make().closed_form]
TAIDS = [case for case in CLOSED if case.name == "taid"]


def test_the_common_losses_have_one():
    assert {case.name for case in CLOSED} >= {"cross_entropy", "forward_kl", "reverse_kl", "jsd", "taid"}


def function_losses_in_closed_form() -> list[str]:
    return [name for name in LOSSES.names() if hasattr(LOSSES.module(name), "value_and_grad")]


@pytest.mark.parametrize("name", function_losses_in_closed_form())
def test_it_takes_the_options_of_the_loss_with_the_same_defaults(name):
    loss, closed = (options_of(function) for function in (LOSSES.member(name), LOSSES.module(name).value_and_grad))
    defaults = [{option.name: option.default for option in options.values()} for options in (loss, closed)]
    assert defaults[0] == defaults[1]


def both_ways(case: Case, logits: Tensor, teacher_logp: Tensor, target: Tensor) -> tuple[tuple, tuple]:
    author = torch.arange(len(target)) % 3
    free = logits.detach().log_softmax(-1).requires_grad_()
    value = case.make().per_token(LossInputs(free, teacher_logp, target, author=author))
    (grad,) = torch.autograd.grad(value.sum(), free)
    kept = teacher_logp.clone(), free.detach().clone()
    closed = case.make().value_and_grad(LossInputs(free.detach(), teacher_logp, target, author=author))
    assert torch.equal(teacher_logp, kept[0])  # inputs are left as they were
    assert torch.equal(free.detach(), kept[1])
    return closed, (value.detach(), grad)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CLOSED, ids=str)
def test_value_and_grad_equal_autograd(case: Case, seed):
    for closed, by_autograd in zip(*both_ways(case, *inputs(seed)), strict=True):
        torch.testing.assert_close(closed, by_autograd, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", CLOSED, ids=str)
def test_they_agree_where_the_teacher_has_zeros_and_the_student_is_far_away(case: Case):
    logits, teacher_logp, target = inputs(4)
    zero = torch.zeros_like(teacher_logp, dtype=torch.bool).index_fill_(1, torch.tensor([1, 5]), True)
    teacher_logp = with_zeros(teacher_logp, zero.scatter(1, target[:, None], False))
    logits = logits.detach() * 40
    closed, by_autograd = both_ways(case, logits, teacher_logp, target)
    assert (teacher_logp == LOG_FLOOR).any()
    for ours, theirs in zip(closed, by_autograd, strict=True):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", TAIDS, ids=str)
def test_a_moved_t_moves_the_gradient(case: Case):
    logits, teacher_logp, target = inputs(2)
    loss = case.make()
    x = LossInputs(logits.detach().log_softmax(-1), teacher_logp, target)
    before = loss.value_and_grad(x)[1]
    loss.load_state_dict({**loss.state_dict(), "t": 1.0})
    torch.testing.assert_close(loss.value_and_grad(x)[1], -teacher_logp.exp())
    assert (before - loss.value_and_grad(x)[1]).abs().max() > 1e-3
