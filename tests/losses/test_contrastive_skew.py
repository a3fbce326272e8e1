"""Which of the two skew losses a position gets, by who wrote it."""

from math import log

import pytest
import torch

from studykit.losses import Author, LossInputs, get_loss

from .case import Case, P, Q, inputs
from .cases import reference
from .test_all_losses import extreme_inputs

DATA, TEACHER, STUDENT = Author
AUTHOR = torch.tensor([DATA, STUDENT, TEACHER, STUDENT, STUDENT, DATA])


@pytest.mark.parametrize("skew", [0.0, 0.1, 0.6])
def test_mixed_authors_equal_the_two_skew_losses_on_their_rows(skew):
    logits, teacher_logp, target = inputs()
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target, author=AUTHOR)
    value = get_loss("contrastive_skew", skew=skew).per_token(x)
    for row, by_student in enumerate((AUTHOR == STUDENT).tolist()):
        name = "skew_reverse_kl" if by_student else "skew_forward_kl"
        expected = get_loss(name, skew=skew).per_token(x)[row]
        assert value[row] == expected
        pair = [torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (value[row], expected)]
        torch.testing.assert_close(*pair, rtol=0, atol=0)


@pytest.mark.parametrize("skew", [0.0, 0.1, 0.6])
def test_values_of_mixed_authors_equal_the_slow_reference(skew):
    logits, teacher_logp, target = inputs(4)
    rows = [logp.exp().tolist() for logp in (teacher_logp, logits.detach().log_softmax(-1))]
    expected = reference(Case("contrastive_skew", {"skew": skew}), *rows, target.tolist(), author=AUTHOR.tolist())
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target, author=AUTHOR)
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


def test_the_gradient_of_mixed_authors_equals_finite_differences():
    logits, teacher_logp, target = inputs(3)
    loss = get_loss("contrastive_skew")
    torch.autograd.gradcheck(
        lambda z: loss.per_token(LossInputs(z.log_softmax(-1), teacher_logp, target, author=AUTHOR)), logits
    )


@pytest.mark.parametrize("skew", [0.0, 0.1])
@pytest.mark.parametrize("extreme", extreme_inputs())
def test_the_loss_not_chosen_spoils_no_gradient(extreme, skew):
    logits, teacher_logp, target = extreme_inputs()[extreme]
    logits = logits.float().requires_grad_()
    x = LossInputs(logits.log_softmax(-1), teacher_logp.float(), target, author=AUTHOR)
    value = get_loss("contrastive_skew", skew=skew).per_token(x)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_it_equals_its_constants_for_data_teacher_and_student():
    p, q = (torch.tensor([row] * 3, dtype=torch.float64).log() for row in (P, Q))
    x = LossInputs(q, p, torch.tensor([0, 0, 0]), author=torch.tensor([DATA, TEACHER, STUDENT]))
    forward = log(2) / 2 + log(3 / 7) / 4 + log(3 / 2) / 4
    reverse = log(1 / 3) / 8 + 3 * log(9 / 5) / 4 + log(3 / 5) / 8
    assert get_loss("contrastive_skew", skew=1 / 3).per_token(x).tolist() == pytest.approx([forward, forward, reverse])
