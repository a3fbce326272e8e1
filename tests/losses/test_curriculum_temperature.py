"""CTKD's temperature: bounded, learned, and pushed up the loss that the student goes down."""

import pytest
import torch

from studykit.losses.curriculum_temperature import CurriculumTemperature

from .case import inputs, values


def loss_at(temperature: float, scale_by_t2: bool = False) -> float:
    logits, teacher_logp, _ = inputs()
    q, p = ((z / temperature).softmax(-1) for z in (logits.detach(), teacher_logp))
    value = (p * (p / q).log()).sum()
    return (value * temperature**2 if scale_by_t2 else value).item()


def temperature_gradient(loss: CurriculumTemperature, progress: float) -> float:
    (gradient,) = torch.autograd.grad(values(loss, *inputs(), progress=progress).sum(), loss.parameters())
    return gradient.item()


@pytest.mark.parametrize("scale_by_t2", [False, True])
@pytest.mark.parametrize(("progress", "reversal"), [(0.0, 0.0), (1 / 3, -0.25), (0.5, -0.5), (1.0, -1.0)])
def test_the_gradient_in_t_is_reversed_on_a_cosine(progress, reversal, scale_by_t2):
    loss = CurriculumTemperature(initial=3.0, scale_by_t2=scale_by_t2)
    step = 1e-5
    grad = (loss_at(3.0 + step, scale_by_t2) - loss_at(3.0 - step, scale_by_t2)) / (2 * step)
    share = (3.0 - 1.0) / 20.0
    by_raw = grad * 20.0 * share * (1 - share)  # T = 1 + 20 sigmoid(raw)
    assert abs(by_raw) > 0.1
    assert temperature_gradient(loss, progress) == pytest.approx(reversal * by_raw, rel=1e-4, abs=1e-6)


def test_an_optimizer_step_moves_t_up_the_loss_and_the_student_down():
    loss = CurriculumTemperature(initial=3.0)
    logits, teacher_logp, target = inputs()
    optimizer = torch.optim.SGD([logits, *loss.parameters()], lr=0.05)
    before = values(loss, logits, teacher_logp, target).sum().item()
    values(loss, logits, teacher_logp, target, progress=1.0).sum().backward()
    optimizer.step()
    assert loss.temperature != 3.0
    assert loss_at(loss.temperature) > loss_at(3.0)
    assert values(CurriculumTemperature(initial=3.0), logits, teacher_logp, target).sum().item() < before


def test_the_student_gradient_is_not_reversed():
    logits, teacher_logp, target = inputs()
    gradients = [
        torch.autograd.grad(
            values(CurriculumTemperature(), logits, teacher_logp, target, progress=progress).sum(), logits
        )[0]
        for progress in (0.0, 1.0)
    ]
    torch.testing.assert_close(*gradients)
    expected = ((logits / 2).softmax(-1) - (teacher_logp / 2).softmax(-1)) / 2
    torch.testing.assert_close(gradients[0], expected, rtol=1e-5, atol=1e-7)  # T is float32


@pytest.mark.parametrize("raw", [-200.0, 0.0, 200.0])
def test_t_stays_between_its_bounds(raw):
    loss = CurriculumTemperature(low=0.5, high=8.0)
    loss.load_state_dict({"raw": torch.tensor(raw)})
    assert 0.5 <= loss.temperature <= 8.0
    assert values(loss, *inputs()).isfinite().all()


def test_t_starts_at_its_option():
    assert CurriculumTemperature(initial=4.0).temperature == pytest.approx(4.0, rel=1e-6)


def test_state_is_restored_into_the_parameter_that_the_optimizer_holds():
    trained, resumed = CurriculumTemperature(initial=5.0), CurriculumTemperature()
    (held,) = resumed.parameters()
    state = trained.state_dict()
    resumed.load_state_dict(state)
    assert resumed.temperature == trained.temperature
    assert resumed.parameters()[0] is held
    with torch.no_grad():
        trained.parameters()[0].add_(1.0)
    assert state["raw"].item() == held.item(), "a saved state does not change with training"
