"""What holds for every loss in the package: a new file without a case and a reference fails here."""

import inspect

import pytest
import torch

from studykit.losses import LOG_FLOOR, LOSSES, Loss, LossInputs

from .cases import CASES, CATEGORIES, ROWS, Case, inputs, values, with_zeros
from .reference import REFERENCES

every_case = pytest.mark.parametrize("case", CASES, ids=str)
ROW_BY_ROW = [case for case in CASES if not case.make().couples_rows]


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_loss_has_a_reference_and_a_case(name):
    assert name in REFERENCES, f"write {name} in tests/losses/reference.py"
    assert any(case.name == name for case in CASES), f"list {name} in tests/losses/cases.py"


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_loss_is_documented(name):
    assert LOSSES.describe(name).endswith((".", ")")) or ":" in LOSSES.describe(name)
    doc = inspect.getdoc(LOSSES.member(name)) or ""
    wanted = ["Example:"] + ["Source:"] * (name != "cross_entropy")
    assert [section for section in wanted if section not in doc] == []


@every_case
@pytest.mark.parametrize("seed", range(5))
def test_value_equals_the_slow_reference(case: Case, seed):
    logits, teacher_logp, target = inputs(seed)
    rows = [logp.exp().tolist() for logp in (teacher_logp, logits.detach().log_softmax(-1))]
    expected = REFERENCES[case.name](*rows, target.tolist(), **case.options)
    loss = case.make()
    actual = values(loss, logits, teacher_logp, target).tolist()
    # A learned parameter is float32, so that a temperature of 2 is one of 2 ± 1e-7.
    assert actual == pytest.approx(expected, rel=1e-6 if loss.parameters() else case.rounding)


FINITE_AT_ZEROS = [
    *(Case(name) for name in ("forward_kl", "jsd", "skew_forward_kl", "skew_reverse_kl", "total_variation")),
    *(Case(name) for name in ("alpha_beta", "decoupled_kl", "taid", "curriculum_temperature", "sorted_l1")),
    *(Case(name) for name in ("correlation", "contrastive_skew", "policy_gradient")),
    Case("alpha_beta", {"alpha": 0.6, "beta": 0.4}),
    Case("policy_gradient", {"discount": 1.0, "teacher_share": 0.2, "clip": 0.1}),
]


@pytest.mark.parametrize("case", FINITE_AT_ZEROS, ids=str)
def test_value_equals_the_slow_reference_where_the_teacher_has_zeros(case: Case):
    logits, teacher_logp, target = inputs(8)
    zero = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    zero = zero.scatter(1, target[:, None], False)
    teacher_logp = with_zeros(teacher_logp, zero)
    rows = [logp.exp().tolist() for logp in (teacher_logp, logits.detach().log_softmax(-1))]
    expected = REFERENCES[case.name](*rows, target.tolist(), **case.options)
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


@pytest.mark.parametrize("case", ROW_BY_ROW, ids=str)
def test_rows_do_not_see_each_other(case: Case):
    logits, teacher_logp, target = inputs(5)
    whole = values(case.make(), logits, teacher_logp, target)
    alone = [values(case.make(), logits[i : i + 1], teacher_logp[i : i + 1], target[i : i + 1]) for i in range(ROWS)]
    torch.testing.assert_close(torch.cat(alone), whole)


def test_only_comparing_positions_and_looking_ahead_couple_rows():
    coupled = [case for case in CASES if case.make().couples_rows]
    assert {case.name for case in coupled} == {"comparative", "policy_gradient"}
    looking_ahead = [case for case in coupled if case.name == "policy_gradient"]
    assert all(case.options.get("discount") or case.options.get("whiten") for case in looking_ahead)


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
def test_the_teacher_is_asked_for(case: Case):
    loss = case.make()
    logits, _, target = inputs()
    x = LossInputs(logits.log_softmax(-1), None, target)
    if not loss.needs_teacher:
        assert loss.per_token(x).shape == (ROWS,)
        return
    with pytest.raises(ValueError, match="none was given"):
        loss.per_token(x)


@every_case
def test_a_fresh_loss_takes_the_state_of_another(case: Case):
    loss, other = case.make(), case.make()
    assert isinstance(loss, Loss)
    other.load_state_dict(loss.state_dict())
    logits, teacher_logp, target = inputs()
    assert torch.equal(values(loss, logits, teacher_logp, target), values(other, logits, teacher_logp, target))
