"""TAID's target and the walk of t, against the recurrence written out."""

import math

import pytest
import torch

from studykit.losses import LossInputs
from studykit.losses.forward_kl import forward_kl
from studykit.losses.taid import Taid

from .case import inputs, values

LOSSES = [3.0, 2.9, 2.95, 2.5, 2.2, 2.3, 1.9, 1.7, 1.75, 1.4, 1.3, 1.2, 1.25, 1.0, 0.9, 0.95, 0.8, 0.7, 0.75, 0.6]


def walk(loss: Taid, first: int = 0, last: int = 20) -> list[float]:
    ts = []
    for index in range(first, last):
        loss.step(LOSSES[index], (index + 1) / len(LOSSES))
        ts.append(loss.t)
    return ts


def recurrence(alpha: float, beta: float, t_start: float, t_end: float) -> list[float]:
    t, m, ts = t_start, 0.0, [t_start]  # the first step only remembers its loss
    for index in range(1, 20):
        before, now = LOSSES[index - 1], LOSSES[index]
        m = beta * m + (1 - beta) * (before - now) / before
        linear = t_start + (t_end - t_start) * (index + 1) / 20
        t = min(t_end, max(linear, t + alpha * (1 / (1 + math.exp(-m))) * (1 - t)))
        ts.append(t)
    return ts


@pytest.mark.parametrize(
    ("options", "alpha", "beta", "t_start", "t_end"),
    [
        ({}, 6 / 20, 0.99, 0.4, 1.0),
        ({"alpha": 5e-4}, 5e-4, 0.99, 0.4, 1.0),
        ({"alpha": 0.2, "beta": 0.5, "t_start": 0.1, "t_end": 0.9}, 0.2, 0.5, 0.1, 0.9),
        ({"alpha": 0.9, "beta": 0.9, "t_end": 0.8}, 0.9, 0.9, 0.4, 0.8),
        ({"alpha": 0.1, "beta": 0.0, "t_start": 0.0}, 0.1, 0.0, 0.0, 1.0),
    ],
)
def test_t_follows_the_recurrence_for_twenty_steps(options, alpha, beta, t_start, t_end):
    assert walk(Taid(**options)) == pytest.approx(recurrence(alpha, beta, t_start, t_end), rel=1e-12)


def test_the_second_step_by_hand():
    """m = 0.5 (2 - 1)/2 = ¼, t = 0.2 + 0.5 sigmoid(¼) 0.8."""
    loss = Taid(t_start=0.2, alpha=0.5, beta=0.5)
    loss.step(2.0, 0.01)
    assert loss.t == 0.2
    loss.step(1.0, 0.02)
    assert loss.momentum == pytest.approx(0.25)
    assert loss.t == pytest.approx(0.2 + 0.5 * 0.5621765 * 0.8)


def test_the_linear_schedule_and_the_fixed_one():
    assert walk(Taid(schedule="linear")) == pytest.approx([0.4 + 0.6 * (i + 1) / 20 for i in range(20)])
    assert walk(Taid(schedule="fixed", t_start=0.7)) == [0.7] * 20


def test_a_small_alpha_is_held_by_the_floor_and_the_automatic_one_is_not():
    loss = Taid(alpha=5e-4)
    walk(loss)
    assert loss.at_floor
    loss = Taid()
    walk(loss, last=10)
    assert not loss.at_floor
    assert loss.t > 0.4 + 0.6 * 10 / 20


def test_the_automatic_alpha_reaches_the_same_t_in_runs_of_any_length():
    ends = []
    for steps in (100, 1000):
        loss = Taid()
        for index in range(steps // 2):
            loss.step(1.0, (index + 1) / steps)
        ends.append(loss.t)
    assert ends[0] == pytest.approx(ends[1], rel=0.01)


def test_t_survives_a_resume():
    whole, first, second = Taid(), Taid(), Taid()
    expected = walk(whole)
    walk(first, last=7)
    second.load_state_dict(first.state_dict())
    assert walk(second, first=7) == expected[7:]
    assert second.state_dict() == whole.state_dict()


def test_a_resume_before_the_first_step_is_a_fresh_start():
    loss = Taid()
    loss.load_state_dict(Taid().state_dict())
    assert walk(loss) == walk(Taid())


def test_evaluating_the_loss_does_not_move_t():
    loss = Taid()
    before = loss.state_dict()
    for progress in (0.0, 0.5, 1.0):
        values(loss, *inputs(), progress=progress)
    assert loss.state_dict() == before


def test_a_step_with_loss_zero_does_not_overflow():
    loss = Taid()
    for mean_loss in (0.0, 1.0, 0.0, 2.0):
        loss.step(mean_loss, 0.1)
    assert 0.4 <= loss.t <= 1


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_the_gradient_is_student_minus_interpolated_target(t):
    """The target is a constant to the gradient."""
    logits, teacher_logp, target = inputs()
    loss = Taid(schedule="fixed", t_start=t)
    (gradient,) = torch.autograd.grad(values(loss, logits, teacher_logp, target).sum(), logits)
    q, p = logits.detach().softmax(-1), teacher_logp.exp()
    interpolated = q ** (1 - t) * p**t
    torch.testing.assert_close(gradient, q - interpolated / interpolated.sum(-1, keepdim=True))


def test_at_the_end_it_is_forward_kl_plus_the_entropy_of_the_teacher():
    logits, teacher_logp, target = inputs()
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target)
    entropy = -(teacher_logp.exp() * teacher_logp).sum(-1)
    torch.testing.assert_close(Taid(t_start=1.0).per_token(x), forward_kl(x) + entropy)


def test_interpolating_log_probabilities_is_interpolating_logits():
    """Constants added to a row of logits, another for each side, change nothing."""
    logits, teacher_logp, target = inputs()
    moved = LossInputs(logits.log_softmax(-1), teacher_logp + 7.0, target)
    kept = LossInputs(logits.log_softmax(-1), teacher_logp, target)
    torch.testing.assert_close(Taid().per_token(moved), Taid().per_token(kept))
