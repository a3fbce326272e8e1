"""What holds for every loss in the package; a loss without a file in tests/losses/cases fails here."""

import inspect
import re

import pytest
import torch

from studykit.errors import InputError
from studykit.losses import LOG_FLOOR, LOSSES, Loss, LossInputs, get_loss

from .case import CATEGORIES, ROWS, Case, inputs, values, with_zeros
from .cases import AT_ZEROS, CASES, FILES, each, reference

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_loss_has_a_case_file_with_reference_constants_and_cases(name):
    assert name in FILES, f"write tests/losses/cases/{name}.py, like the others there: tests/losses/case.py says what"
    missing = [part for part in ("reference", "CONSTANTS", "CASES") if not getattr(FILES[name], part, None)]
    assert not missing, f"tests/losses/cases/{name}.py lacks {', '.join(missing)}"


def test_no_case_file_is_left_of_a_loss_that_is_gone():
    assert set(FILES) <= set(LOSSES.names())


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_loss_is_documented(name):
    assert LOSSES.describe(name).endswith((".", ")")) or ":" in LOSSES.describe(name)
    assert "Example:" in (inspect.getdoc(LOSSES.member(name)) or ""), "a value worked out by hand, run as a doctest"


@every_case
@pytest.mark.parametrize("seed", range(5))
def test_value_equals_the_slow_reference(case: Case, seed):
    logits, teacher_logp, target = inputs(seed)
    rows = [logp.exp().tolist() for logp in (teacher_logp, logits.detach().log_softmax(-1))]
    expected = reference(case, *rows, target.tolist())
    loss = case.make()
    actual = values(loss, logits, teacher_logp, target).tolist()
    # A learned parameter is float32, so that a temperature of 2 is one of 2 ± 1e-7.
    assert actual == pytest.approx(expected, rel=1e-6 if loss.parameters() else case.rounding)


@pytest.mark.parametrize("case", AT_ZEROS, ids=str)
def test_value_equals_the_slow_reference_where_the_teacher_has_zeros(case: Case):
    logits, teacher_logp, target = inputs(8)
    zero = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    zero = zero.scatter(1, target[:, None], False)
    teacher_logp = with_zeros(teacher_logp, zero)
    rows = [logp.exp().tolist() for logp in (teacher_logp, logits.detach().log_softmax(-1))]
    expected = reference(case, *rows, target.tolist())
    assert values(case.make(), logits, teacher_logp, target).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case.differentiable], ids=str)
def test_gradient_equals_finite_differences(case: Case):
    loss = case.make()
    logits, teacher_logp, target = inputs(3)
    torch.autograd.gradcheck(lambda z: values(loss, z, teacher_logp, target, progress=0.5), logits)


@every_case
def test_at_the_teacher_value_and_gradient_are_zero_where_promised(case: Case):
    logits, _, target = inputs(1)
    teacher_logp = logits.detach().log_softmax(-1)  # equal to the last bit, since |p - q| has a kink there
    value = values(case.make(), logits, teacher_logp, target)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert (value.abs().max() < 1e-12) == case.zero_value
    assert (gradient.abs().max() < 1e-12) == case.zero_gradient


@pytest.mark.parametrize("case", [case for case in CASES if case.nonnegative], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_no_value_is_negative(case: Case, seed):
    logits, teacher_logp, target = inputs(seed)
    assert (values(case.make(), logits, teacher_logp, target) > -1e-12).all()


@every_case
def test_the_gradient_of_logits_sums_to_zero_in_each_row(case: Case):
    """Adding a constant to a row of logits changes no probability."""
    logits, teacher_logp, target = inputs(2)
    (gradient,) = torch.autograd.grad(values(case.make(), logits, teacher_logp, target).sum(), logits)
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(ROWS, dtype=torch.float64), rtol=0, atol=1e-12)


@every_case
def test_the_order_of_categories_does_not_matter(case: Case):
    logits, teacher_logp, target = inputs(4)
    order = torch.randperm(CATEGORIES, generator=torch.Generator().manual_seed(0))
    shuffled = values(case.make(), logits[:, order], teacher_logp[:, order], order.argsort()[target])
    torch.testing.assert_close(shuffled, values(case.make(), logits, teacher_logp, target))


@every_case
def test_rows_see_each_other_exactly_where_the_loss_couples_them(case: Case):
    logits, teacher_logp, target = inputs(5)
    whole = values(case.make(), logits, teacher_logp, target)
    alone = [values(case.make(), logits[i : i + 1], teacher_logp[i : i + 1], target[i : i + 1]) for i in range(ROWS)]
    assert torch.allclose(torch.cat(alone), whole, rtol=1e-7, atol=1e-7) == (not case.make().couples_rows)


@every_case
def test_a_tail_without_mass_changes_nothing(case: Case):
    """A teacher folded at k = V has one more category, impossible on both sides."""
    logits, teacher_logp, target = inputs(6)
    student_logp, nothing = logits.log_softmax(-1), torch.full((ROWS, 1), LOG_FLOOR, dtype=torch.float64)
    folded = LossInputs(torch.cat([student_logp, nothing], 1), torch.cat([teacher_logp, nothing], 1), target)
    dense = LossInputs(student_logp, teacher_logp, target)
    torch.testing.assert_close(case.make().per_token(folded), case.make().per_token(dense))


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_of_the_inputs_is_kept(case: Case, dtype):
    logits, teacher_logp, target = inputs()
    value = values(case.make(), logits.to(dtype), teacher_logp.to(dtype), target, progress=0.3)
    assert value.dtype == dtype
    assert value.shape == (ROWS,)
    exact = values(case.make(), logits, teacher_logp, target, progress=0.3)
    torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=1e-5)  # float32 rounding in a sum of differences


@every_case
@pytest.mark.parametrize("rows", [0, 1])
def test_no_supervised_token_and_a_single_one(case: Case, rows):
    logits, teacher_logp, target = inputs(rows=rows)
    value = values(case.make(), logits, teacher_logp, target)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.shape == (rows,)
    assert gradient.shape == (rows, CATEGORIES)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def extreme_inputs() -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    student, teacher_logp, target = (x.detach() for x in inputs(7))
    generator = torch.Generator().manual_seed(0)
    far = [1e4 * torch.randint(-1, 2, student.shape, generator=generator).double() for _ in range(2)]
    zero = torch.rand(student.shape, generator=generator) < 0.5
    zero[:, 0] = False
    one_hot = torch.nn.functional.one_hot(target, CATEGORIES).double().log().clamp(min=LOG_FLOOR)
    uniform = torch.zeros_like(student).log_softmax(-1)
    return {
        "student ±1e4": (far[0], teacher_logp, target),
        "teacher ±1e4": (student, far[1].log_softmax(-1), target),
        "both ±1e4": (far[0], far[1].log_softmax(-1), target),
        "teacher zeros": (student, with_zeros(teacher_logp, zero), target),
        "teacher zeros, student ±1e4": (far[0], with_zeros(teacher_logp, zero), target),
        "teacher one-hot": (student, one_hot, target),
        "teacher one-hot elsewhere": (student, one_hot.roll(1, dims=1), target),
        "both one-hot": (1e4 * one_hot.exp(), one_hot, target),
        "student uniform": (uniform, teacher_logp, target),
        "both uniform": (uniform, uniform, target),
    }


@every_case
@pytest.mark.parametrize("extreme", extreme_inputs())
def test_extreme_inputs_give_finite_values_and_gradients(case: Case, extreme):
    logits, teacher_logp, target = extreme_inputs()[extreme]
    logits = logits.float().requires_grad_()
    loss = case.make()
    value = values(loss, logits, teacher_logp.float(), target, progress=0.7)
    gradients = torch.autograd.grad(value.sum(), [logits, *loss.parameters()])
    assert value.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


@every_case
def test_a_missing_teacher_is_refused(case: Case):
    loss = case.make()
    logits, _, target = inputs()
    x = LossInputs(logits.log_softmax(-1), None, target)
    if not loss.needs_teacher:
        assert loss.per_token(x).shape == (ROWS,)
        return
    with pytest.raises(ValueError, match="none was given"):
        loss.per_token(x)


@every_case
def test_a_fresh_loss_takes_the_state_of_one_that_has_moved(case: Case):
    moved, other = case.make(), case.make()
    assert isinstance(moved, Loss)
    for mean_loss, progress in ((2.0, 0.25), (1.0, 0.5)):
        moved.step(mean_loss, progress)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.5)
    fresh = values(other, *inputs()).clone()
    assert torch.equal(values(moved, *inputs()), fresh) == (not case.moves)
    other.load_state_dict(moved.state_dict())
    assert torch.equal(values(moved, *inputs()), values(other, *inputs()))
    assert str(other.state_dict()) == str(moved.state_dict())


@pytest.mark.parametrize(("name", "options", "sibling"), each("SIBLINGS"))
def test_a_special_case_equals_its_sibling(name, options, sibling):
    logits, teacher_logp, target = inputs()
    pair = [values(loss, logits, teacher_logp, target) for loss in (get_loss(name, **options), get_loss(sibling))]
    torch.testing.assert_close(*pair)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), logits)[0] for value in pair))


@pytest.mark.parametrize(("name", "options", "message"), each("REFUSED"))
def test_a_wrong_option_is_refused_with_its_range(name, options, message):
    with pytest.raises(InputError, match=f"loss '{name}': .*{re.escape(message)}"):
        get_loss(name, **options)
