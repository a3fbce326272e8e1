"""What the policy gradient is worth: its mean over samples against exact gradients, its advantages against pencil."""

from itertools import product
from math import inf, log, sqrt

import pytest
import torch
from torch import Tensor

from studykit.losses import LOG_FLOOR, Loss, LossInputs, get_loss
from studykit.losses.policy_gradient import PolicyGradient

from .case import REVERSE, Case, P, Q, inputs, values
from .cases import reference

CATEGORIES = 4


def sides(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return student logits that require a gradient and teacher log-probabilities, float64."""
    student, teacher = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.5
    return student.requires_grad_(), teacher.log_softmax(-1)


def written(labels: list[int]) -> LossInputs:
    """Return one position for each label, every one with the same p and q."""
    p, q = (torch.tensor([row] * len(labels), dtype=torch.float64).log() for row in (P, Q))
    return LossInputs(q.requires_grad_(), p, torch.tensor(labels))


def kl_of_student(logits: Tensor, teacher_logp: Tensor) -> Tensor:
    """Return Σ q (log q - log p), from the definition."""
    q = logits.softmax(-1)
    return (q * (q.log() - teacher_logp)).sum()


def mean_over_tokens(loss: Loss, logits: Tensor, teacher_logp: Tensor, sampled_from: Tensor) -> Tensor:
    """Return the loss at one position, over all tokens that could have been sampled, each with its probability."""
    q = logits.log_softmax(-1)
    each = [loss.per_token(LossInputs(q[None], teacher_logp[None], y[None]))[0] for y in torch.arange(len(logits))]
    return (sampled_from.detach() * torch.stack(each)).sum()


def grad(value: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(value, logits, retain_graph=True)[0]


@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_its_mean_over_the_students_tokens_is_the_gradient_of_reverse_kl(seed, one_step):
    logits, teacher_logp = sides(CATEGORIES, seed=seed)
    mean = mean_over_tokens(get_loss("policy_gradient", one_step=one_step), logits, teacher_logp, logits.softmax(-1))
    torch.testing.assert_close(grad(mean, logits), grad(kl_of_student(logits, teacher_logp), logits))


@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_its_mean_over_a_mixtures_tokens_is_the_gradient_of_reverse_kl(share, one_step):
    logits, teacher_logp = sides(CATEGORIES)
    mixture = (1 - share) * logits.softmax(-1) + share * teacher_logp.exp()
    loss = get_loss("policy_gradient", teacher_share=share, one_step=one_step)
    expected = grad(kl_of_student(logits, teacher_logp), logits)
    torch.testing.assert_close(grad(mean_over_tokens(loss, logits, teacher_logp, mixture), logits), expected)
    uncorrected = get_loss("policy_gradient", one_step=one_step)
    if not one_step:  # the one-step term is the whole gradient at every token of any author
        mean = mean_over_tokens(uncorrected, logits, teacher_logp, mixture)
        assert (grad(mean, logits) - expected).abs().max() > 0.01


def test_with_one_step_and_no_future_each_token_has_the_gradient_of_reverse_kl():
    logits, teacher_logp, target = inputs()
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target)
    value = get_loss("policy_gradient", one_step=True).per_token(x)
    exact = get_loss("reverse_kl").per_token(x)
    torch.testing.assert_close(value, exact, rtol=0, atol=0)
    for row in range(len(target)):
        torch.testing.assert_close(grad(value[row], logits), grad(exact[row], logits), rtol=0, atol=0)


def test_the_weight_of_the_one_step_term_is_held_constant():
    logits, teacher_logp, target = inputs()
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target)
    value = get_loss("policy_gradient", one_step=True, teacher_share=0.4).per_token(x)
    q, p = (side.detach().exp()[range(len(target)), target] for side in (x.student_logp, teacher_logp))
    weighted = q / (0.6 * q + 0.4 * p) * get_loss("reverse_kl").per_token(x)
    torch.testing.assert_close(grad(value.sum(), logits), grad(weighted.sum(), logits))


def two_token_student(seed: int = 3, tokens: int = 3) -> tuple[Tensor, Tensor]:
    """Return logits and teacher log-probabilities: row 0 for the first token, row 1 + y for the second after y."""
    return sides(1 + tokens, tokens, seed=seed)


def mean_over_answers(loss: Loss, logits: Tensor, teacher_logp: Tensor) -> Tensor:
    """Return the loss summed over both tokens, over all answers, each with the student's probability of it."""
    q, total = logits.log_softmax(-1), torch.zeros((), dtype=torch.float64)
    for first, second in product(range(q.shape[1]), repeat=2):
        rows = [0, 1 + first]
        x = LossInputs(q[rows], teacher_logp[rows], torch.tensor([first, second]), sequence=torch.tensor([0, 0]))
        likelihood = (q[0, first] + q[1 + first, second]).exp().detach()
        total = total + likelihood * loss.per_token(x).sum()
    return total


def kl_of_answers(logits: Tensor, teacher_logp: Tensor) -> Tensor:
    """Return KL(q‖p) between answers of two tokens, by enumeration."""
    q, p = ((side[0][:, None] + side[1:]).flatten() for side in (logits.log_softmax(-1), teacher_logp))
    return (q.exp() * (q - p)).sum()


@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_its_mean_over_whole_answers_is_the_gradient_of_their_reverse_kl(seed, one_step):
    logits, teacher_logp = two_token_student(seed)
    mean = mean_over_answers(get_loss("policy_gradient", discount=1.0, one_step=one_step), logits, teacher_logp)
    torch.testing.assert_close(grad(mean, logits), grad(kl_of_answers(logits, teacher_logp), logits))


@pytest.mark.parametrize("options", [{}, {"discount": 0.5}, {"discount": 1.0, "length_normalised": True}], ids=str)
def test_discounting_or_normalising_is_another_gradient_than_that_of_whole_answers(options):
    logits, teacher_logp = two_token_student()
    mean = mean_over_answers(get_loss("policy_gradient", **options), logits, teacher_logp)
    assert (grad(mean, logits) - grad(kl_of_answers(logits, teacher_logp), logits)).abs().max() > 0.01


def test_the_one_step_term_makes_the_gradient_less_noisy():
    """The token's own reward is averaged exactly, and only what follows is left to chance."""
    logits, teacher_logp = two_token_student()

    def variance(one_step: bool) -> float:
        q, loss = logits.log_softmax(-1), get_loss("policy_gradient", discount=1.0, one_step=one_step)
        mean = grad(mean_over_answers(loss, logits, teacher_logp), logits)
        spread = 0.0
        for first, second in product(range(3), repeat=2):
            x = LossInputs(q[[0, 1 + first]], teacher_logp[[0, 1 + first]], torch.tensor([first, second]))
            gradient = grad(loss.per_token(x).sum(), logits)
            spread += (q[0, first] + q[1 + first, second]).exp().item() * (gradient - mean).square().sum().item()
        return spread

    assert variance(one_step=True) < variance(one_step=False)


SEQUENCES = [[0, 0, 0, 1, 1, 2], [3, 3, 7, 7, 7, 7], [0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("sequence", SEQUENCES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"discount": 1.0},
        {"discount": 0.7, "one_step": True},
        {"discount": 1.0, "length_normalised": True},
        {"discount": 0.7, "length_normalised": True, "one_step": True, "teacher_share": 0.3, "clip": 0.1},
        {"discount": 0.7, "whiten": True},
    ],
    ids=str,
)
def test_values_over_several_sequences_equal_the_slow_reference(options, sequence):
    logits, teacher_logp, target = inputs(9)
    rows = [logp.exp().tolist() for logp in (teacher_logp, logits.detach().log_softmax(-1))]
    expected = reference(Case("policy_gradient", options), *rows, target.tolist(), sequence=sequence)
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target, sequence=torch.tensor(sequence))
    rounding = 1e-6 if "whiten" in options else 1e-10  # as in its cases
    assert get_loss("policy_gradient", **options).per_token(x).tolist() == pytest.approx(expected, rel=rounding)


def advantages_by_a_loop(reward: list[float], sequence: list[int], discount: float, one_step: bool) -> list[float]:
    """Walk back over the tokens, adding up what follows each in its sequence."""
    totals, after = [0.0] * len(reward), 0.0
    for t in reversed(range(len(reward))):
        if t + 1 == len(reward) or sequence[t] != sequence[t + 1]:
            after = 0.0
        totals[t] = discount * after if one_step else reward[t] + discount * after
        after = reward[t] + discount * after
    return totals


@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("discount", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("lengths", [[1], [700], [1, 1, 1], [5, 1, 300, 2, 64]], ids=str)
def test_advantages_equal_a_loop_over_the_tokens_to_the_last_digit(lengths, discount, one_step):
    """The sum is taken in float64 in another order, so that it is the same once rounded to float32."""
    reward = 3 * torch.randn(sum(lengths), generator=torch.Generator().manual_seed(0))
    sequence = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    loss = PolicyGradient(discount=discount, one_step=one_step)
    expected = advantages_by_a_loop(reward.tolist(), sequence.tolist(), discount, one_step)
    assert torch.equal(loss._advantage(reward, sequence), torch.tensor(expected))


@pytest.mark.parametrize("one_step", [False, True])
def test_a_sequence_does_not_see_the_rewards_of_another(one_step):
    logits, teacher_logp, target = inputs()
    loss = get_loss("policy_gradient", discount=1.0, length_normalised=True, one_step=one_step)
    other = teacher_logp.clone()
    other[3:] = inputs(1)[1][3:]
    results = []
    for teacher in (teacher_logp, other):
        x = LossInputs(logits.log_softmax(-1), teacher, target, sequence=torch.tensor([0, 0, 0, 1, 1, 1]))
        value = loss.per_token(x)
        results.append((value, grad(value.sum(), logits)))
    for before, after in zip(*results, strict=True):
        assert torch.equal(before[:3], after[:3])
        assert (before[3:] != after[3:]).any()


def test_a_token_answers_for_what_follows_and_not_for_what_came_before():
    logits, teacher_logp, target = inputs()
    other = teacher_logp.clone()
    other[2] = inputs(1)[1][2]
    before, after = (
        get_loss("policy_gradient", discount=1.0).per_token(LossInputs(logits.log_softmax(-1), teacher, target))
        for teacher in (teacher_logp, other)
    )
    assert (before != after).tolist() == [True, True, True, False, False, False]


HAND = [
    # The rewards of labels 0, 1 and 2 are log 4, -log 3 and log 2.
    ({}, [0, 1, 2], [0, 0, 0], [log(4), -log(3), log(2)]),
    ({"discount": 1.0}, [0, 1, 2], [0, 0, 0], [log(8 / 3), log(2 / 3), log(2)]),
    ({"discount": 0.5}, [0, 1, 2], [0, 0, 0], [log(4) - log(3) / 2 + log(2) / 4, log(2) / 2 - log(3), log(2)]),
    ({"discount": 1.0}, [0, 1, 2], [0, 0, 1], [log(4 / 3), -log(3), log(2)]),
    (
        {"discount": 1.0, "length_normalised": True},
        [0, 1, 2, 0],
        [0, 0, 0, 1],
        [log(8 / 3) / 3, log(2 / 3) / 2, log(2), log(4)],
    ),
    ({"whiten": True}, [0, 1], [0, 0], [1, -1]),
    ({"whiten": True}, [0, 1, 1], [0, 0, 1], [sqrt(2), -sqrt(1 / 2), -sqrt(1 / 2)]),
    ({"whiten": True}, [0, 0], [0, 1], [0, 0]),
    # The future sums are log 4/3 and -log 3: the same two deviations, whatever their size.
    ({"discount": 1.0, "whiten": True}, [0, 1], [0, 0], [1, -1]),
]


@pytest.mark.parametrize(("options", "labels", "sequence", "advantages"), HAND)
def test_advantages_equal_their_constants(options, labels, sequence, advantages):
    x = written(labels)
    x = LossInputs(x.student_logp, x.teacher_logp, x.target, sequence=torch.tensor(sequence))
    expected = [-advantage for advantage in advantages]
    assert get_loss("policy_gradient", **options).per_token(x).tolist() == pytest.approx(expected, rel=1e-7)


FUTURES = [
    ({"discount": 1.0}, [log(2 / 3), log(2), 0]),
    ({"discount": 0.5}, [-log(3) / 2 + log(2) / 4, log(2) / 2, 0]),
    ({"discount": 1.0, "length_normalised": True}, [log(2 / 3) / 2, log(2), 0]),
]


@pytest.mark.parametrize(("options", "futures"), FUTURES)
def test_with_one_step_a_tokens_own_reward_is_left_out_and_not_counted(options, futures):
    value = get_loss("policy_gradient", one_step=True, **options).per_token(written([0, 1, 2]))
    assert value.tolist() == pytest.approx([REVERSE - future for future in futures])


CLIPPED = [
    # Samples from ⅓p + ⅔q: ρ is ½ at label 0 and 9/7 at label 1; rewards log 4 and -log 3. ρA where not clipped.
    ("weight too small, advantage bad", [0, 1, 1], 0.8 * log(4 / 9), True),
    ("weight too large, advantage good", [1, 0], 1.2 * log(4 / 3), True),
    ("weight too small, advantage good", [0], 0.5 * log(4), False),
    ("weight too large, advantage bad", [1], -9 / 7 * log(3), False),
]


@pytest.mark.parametrize(("_", "labels", "gain", "stopped"), CLIPPED)
def test_clipping_stops_the_gradient_where_the_token_has_moved_far_enough(_, labels, gain, stopped):
    x = written(labels)
    value = get_loss("policy_gradient", discount=1.0, teacher_share=1 / 3, clip=0.2).per_token(x)[0]
    assert value.item() == pytest.approx(-gain)
    gradient = grad(value, x.student_logp)
    expected = torch.zeros_like(gradient)
    expected[0, labels[0]] = 0 if stopped else -gain  # of ρA in log q it is ρA again
    torch.testing.assert_close(gradient, expected)


def test_a_clip_that_no_weight_reaches_changes_nothing():
    logits, teacher_logp, target = inputs()
    x = LossInputs(logits.log_softmax(-1), teacher_logp, target)
    plain, clipped = (
        get_loss("policy_gradient", discount=1.0, teacher_share=0.3, clip=clip).per_token(x) for clip in (None, 1.5)
    )
    torch.testing.assert_close(clipped, plain)
    torch.testing.assert_close(grad(clipped.sum(), logits), grad(plain.sum(), logits))


IMPOSSIBLE = [
    {},
    {"discount": 1.0, "one_step": True},
    {"discount": 1.0, "length_normalised": True, "whiten": True},
    {"discount": 1.0, "teacher_share": 0.2, "clip": 0.2, "one_step": True},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", IMPOSSIBLE, ids=str)
def test_a_token_that_the_teacher_finds_impossible_gives_finite_values(options, dtype):
    x = written([0, 1, 2])
    logits = x.student_logp.detach().to(dtype).requires_grad_()
    teacher_logp = x.teacher.to(dtype).clone()
    teacher_logp[1, 1] = LOG_FLOOR
    value = get_loss("policy_gradient", **options).per_token(LossInputs(logits.log_softmax(-1), teacher_logp, x.target))
    assert value.isfinite().all()
    gradient = grad(value.sum(), logits)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0.1


@pytest.mark.parametrize("impossible", [LOG_FLOOR, -inf])
def test_an_impossible_token_costs_a_hundred_nats_and_no_more(impossible):
    x = written([1, 1])
    teacher_logp = x.teacher.clone()
    teacher_logp[1, 1] = impossible
    punished = LossInputs(x.student_logp, teacher_logp, x.target)
    value = get_loss("policy_gradient", discount=1.0, teacher_share=0.5).per_token(punished)
    assert value.tolist() == pytest.approx([1.5 * (log(3) + 100), 200])  # ρ is ¾ / ½, then 2, for the mixture is ½q


def test_the_reward_is_held_constant():
    logits, teacher_logp, target = inputs()
    value = get_loss("policy_gradient", discount=1.0).per_token(
        LossInputs(logits.log_softmax(-1), teacher_logp, target)
    )
    likelihood = logits.log_softmax(-1)[range(len(target)), target]
    torch.testing.assert_close(grad(value.sum(), logits), grad((value.detach() * likelihood).sum(), logits))


@pytest.mark.parametrize(("options", "coupled"), [({}, False), ({"discount": 0.5}, True), ({"whiten": True}, True)])
def test_it_says_whether_rows_belong_together(options, coupled):
    assert PolicyGradient(**options).couples_rows == coupled


def test_without_a_discount_there_is_one_reward_to_divide_by():
    logits, teacher_logp, target = inputs(1)
    plain = values(PolicyGradient(length_normalised=False), logits, teacher_logp, target)
    divided = values(PolicyGradient(length_normalised=True), logits, teacher_logp, target)
    assert torch.equal(plain, divided)


def test_a_single_whitened_position_has_no_advantage():
    logits, teacher_logp, target = inputs(1, rows=1)
    assert values(PolicyGradient(whiten=True), logits, teacher_logp, target).item() == 0


def test_whitening_does_not_blow_up_rounding():
    logits, _, target = inputs(1)
    nearly = (logits.detach() + 1e-6 * torch.randn(logits.shape, dtype=torch.float64)).log_softmax(-1)
    assert values(PolicyGradient(whiten=True), logits, nearly, target).abs().max() < 0.01
