"""Which pairs of positions CKD compares, and on which categories."""

import pytest
import torch

from studykit.losses import LOG_FLOOR, LossInputs
from studykit.losses.comparative import Comparative

from .case import inputs, values


def test_the_number_of_pairs_grows_with_the_square_of_the_positions():
    everyone = Comparative(partners=None)
    assert [everyone.pair_count(n) for n in (0, 1, 2, 3, 50)] == [0, 0, 2, 6, 2450]
    assert [Comparative(partners=4).pair_count(n) for n in (2, 5, 50)] == [2, 20, 200]


@pytest.mark.parametrize("n", [2, 3, 7, 20])
@pytest.mark.parametrize("partners", [1, 2, 5, None])
def test_a_position_has_different_partners_and_never_itself(n, partners):
    offsets = Comparative(partners=partners)._offsets(n)
    assert len(set(offsets)) == len(offsets) == (n - 1 if partners is None else min(partners, n - 1))
    assert all(0 < offset < n for offset in offsets)


def test_the_value_is_the_mean_over_pairs_taken_two_by_two():
    logits, teacher_logp, target = inputs(rows=5)
    loss = Comparative(partners=None)
    for i in range(5):
        pairs = [[i, j] for j in range(5) if j != i]
        alone = [values(loss, logits[pair], teacher_logp[pair], target[pair])[0] for pair in pairs]
        torch.testing.assert_close(values(loss, logits, teacher_logp, target)[i], sum(alone) / 4)


def test_a_single_position_has_nothing_to_be_compared_with():
    logits, teacher_logp, target = inputs(rows=1)
    value = values(Comparative(), logits, teacher_logp, target)
    value.sum().backward()
    assert value.tolist() == [0.0]
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_what_both_positions_share_is_not_learned():
    """A bias added to the student's logits at every position leaves all differences as they are."""
    logits, teacher_logp, target = inputs()
    bias = torch.randn(logits.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = Comparative()
    biased = values(loss, logits + bias, teacher_logp, target)
    torch.testing.assert_close(biased, values(loss, logits, teacher_logp, target))


def test_only_the_union_of_both_tops_and_the_labels_gets_a_gradient():
    logits, teacher_logp, target = inputs(rows=2)
    loss = Comparative(top_k=2)
    x = LossInputs(logits.detach().log_softmax(-1).requires_grad_(), teacher_logp, target)
    (gradient,) = torch.autograd.grad(loss.per_token(x).sum(), x.student_logp)
    union = set()
    for row in range(2):
        others = [token for token in teacher_logp[row].argsort(descending=True).tolist() if token != target[row]]
        union |= {target[row].item(), others[0]}
    assert set((gradient != 0).any(0).nonzero().flatten().tolist()) == union


def test_a_difference_beyond_the_clip_is_cut():
    teacher_logp = torch.tensor([[0.0, -50.0], [0.0, -90.0]]).log_softmax(-1)
    student = torch.tensor([[0.0, -10.0], [0.0, -14.0]])
    target = torch.tensor([0, 0])
    cut = Comparative(clip=4.0, label_weight=0.0)
    assert values(cut, student, teacher_logp, target).abs().max() < 1e-6
    assert values(Comparative(clip=40.0, label_weight=0.0), student, teacher_logp, target).min() > 0.1


def test_a_category_impossible_at_both_positions_does_not_count():
    logits, teacher_logp, target = inputs()
    nothing = torch.full((len(target), 3), LOG_FLOOR, dtype=torch.float64)
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target)
    wider = LossInputs(torch.cat([x.student_logp, nothing], 1), torch.cat([teacher_logp, nothing], 1), target)
    torch.testing.assert_close(Comparative().per_token(wider), Comparative().per_token(x))


def test_a_category_impossible_at_one_position_counts():
    possible = torch.tensor([[0.0, -1.0, -60.0], [-0.5, -1.0, -2.0]], dtype=torch.float64)
    student_logp, teacher_logp = possible.log_softmax(-1), (possible * 2).log_softmax(-1)
    first = LossInputs(student_logp, teacher_logp, torch.tensor([0, 1]))
    floor = [logp.masked_fill(possible == -60, LOG_FLOOR) for logp in (student_logp, teacher_logp)]
    torch.testing.assert_close(
        Comparative().per_token(LossInputs(floor[0], floor[1], first.target)), Comparative().per_token(first)
    )


def test_categories_that_are_not_shared_give_another_value():
    """Which the head and the methods must refuse: a folded teacher's columns are another token in every row."""
    assert Comparative.needs_shared_categories
    logits, teacher_logp, target = inputs()
    order = torch.stack([torch.randperm(logits.shape[1], generator=torch.Generator().manual_seed(i)) for i in range(6)])
    sides = [side.gather(1, order) for side in (logits, teacher_logp)]
    moved = (order == target[:, None]).int().argmax(-1)
    shuffled = values(Comparative(), sides[0], sides[1], moved)
    assert (shuffled - values(Comparative(), logits, teacher_logp, target)).abs().max() > 1e-3
