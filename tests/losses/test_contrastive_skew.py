"""Which of the two skew losses a position gets, by who wrote it."""

import pytest
import torch

from studykit.errors import InputError
from studykit.losses import LossInputs, get_loss

from .cases import inputs
from .reference import REFERENCES
from .test_all_losses import extreme_inputs

DATA, TEACHER, STUDENT = 0, 1, 2
ORIGIN = torch.tensor([DATA, STUDENT, TEACHER, STUDENT, STUDENT, DATA])


@pytest.mark.parametrize("skew", [0.0, 0.1, 0.6])
def test_mixed_origins_equal_the_two_skew_losses_on_their_rows(skew):
    logits, teacher_logp, target = inputs()
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target, author=ORIGIN)
    value = get_loss("contrastive_skew", skew=skew).per_token(x)
    for row, by_student in enumerate((ORIGIN == STUDENT).tolist()):
        name = "skew_reverse_kl" if by_student else "skew_forward_kl"
        expected = get_loss(name, skew=skew).per_token(x)[row]
        assert value[row] == expected
        pair = [torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (value[row], expected)]
        torch.testing.assert_close(*pair, rtol=0, atol=0)


@pytest.mark.parametrize("skew", [0.0, 0.1, 0.6])
def test_values_of_mixed_origins_equal_the_slow_reference(skew):
    logits, teacher_logp, target = inputs(4)
    rows = [logp.exp().tolist() for logp in (teacher_logp, logits.detach().log_softmax(-1))]
    expected = REFERENCES["contrastive_skew"](*rows, target.tolist(), skew=skew, author=ORIGIN.tolist())
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target, author=ORIGIN)
    assert get_loss("contrastive_skew", skew=skew).per_token(x).tolist() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("author", "sibling"),
    [(None, "skew_forward_kl"), (DATA, "skew_forward_kl"), (TEACHER, "skew_forward_kl"), (STUDENT, "skew_reverse_kl")],
)
def test_answers_of_one_kind_get_that_kinds_skew_kl(author, sibling):
    logits, teacher_logp, target = inputs()
    writers = None if author is None else torch.full_like(target, author)
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target, author=writers)
    torch.testing.assert_close(get_loss("contrastive_skew").per_token(x), get_loss(sibling).per_token(x))


def test_the_gradient_of_mixed_origins_equals_finite_differences():
    logits, teacher_logp, target = inputs(3)
    loss = get_loss("contrastive_skew")
    torch.autograd.gradcheck(
        lambda z: loss.per_token(LossInputs(z.log_softmax(-1), teacher_logp, target, author=ORIGIN)), logits
    )


@pytest.mark.parametrize("skew", [0.0, 0.1])
@pytest.mark.parametrize("extreme", extreme_inputs())
def test_the_loss_not_chosen_spoils_no_gradient(extreme, skew):
    logits, teacher_logp, target = extreme_inputs()[extreme]
    logits = logits.float().requires_grad_()
    x = LossInputs(logits.log_softmax(-1), teacher_logp.float(), target, author=ORIGIN)
    value = get_loss("contrastive_skew", skew=skew).per_token(x)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("options", "message"), [({"skew": 1.0}, "skew must lie in"), ({"skw": 0.1}, "mean 'skew'")])
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        get_loss("contrastive_skew", **options)
