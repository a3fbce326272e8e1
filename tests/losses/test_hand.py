"""One value of every loss worked out with pencil and paper, for p = (½, ¼, ¼), q = (⅛, ¾, ⅛) and label 0."""

from math import log, sqrt

import pytest
import torch

from studykit.losses import LOSSES, LossInputs, get_loss

P, Q = [1 / 2, 1 / 4, 1 / 4], [1 / 8, 3 / 4, 1 / 8]
FORWARD = log(4) / 2 + log(1 / 3) / 4 + log(2) / 4
REVERSE = log(1 / 4) / 8 + 3 * log(3) / 4 + log(1 / 2) / 8
P_TO_MIDDLE = log(8 / 5) / 2 + log(1 / 2) / 4 + log(4 / 3) / 4  # (p + q) / 2 is (5/16, 1/2, 3/16)
Q_TO_MIDDLE = log(2 / 5) / 8 + 3 * log(3 / 2) / 4 + log(2 / 3) / 8
LABEL_SHARE = log(4) / 2 + log(4 / 7) / 2  # (½, ½) from (⅛, ⅞)
OTHERS = log(7 / 12) / 2 + log(7 / 2) / 2  # (½, ½) from (6/7, 1/7)
ROOTS = [1 / 4, sqrt(3) / 4, sqrt(2) / 8]  # √(pq), the target halfway before it is normalised

CONSTANTS = [
    ("cross_entropy", {}, log(8)),
    ("forward_kl", {}, FORWARD),
    ("reverse_kl", {}, REVERSE),
    ("jsd", {}, (P_TO_MIDDLE + Q_TO_MIDDLE) / 2),
    ("jsd", {"rescale": True}, 2 * (P_TO_MIDDLE + Q_TO_MIDDLE)),
    # With λ = ⅓ the mixtures are (1/4, 7/12, 1/6) and (3/8, 5/12, 5/24).
    ("skew_forward_kl", {"skew": 1 / 3}, log(2) / 2 + log(3 / 7) / 4 + log(3 / 2) / 4),
    ("skew_reverse_kl", {"skew": 1 / 3}, log(1 / 3) / 8 + 3 * log(9 / 5) / 4 + log(3 / 5) / 8),
    # Gaps 3/8, 1/2 and 1/8; the head at μ = ½ is the first category.
    ("total_variation", {}, 1 / 2),
    ("adaptive_kl", {"mu": 0.5}, 3 / 8 * FORWARD + 5 / 8 * REVERSE),
    ("adaptive_kl", {"mu": 0.75}, 7 / 8 * FORWARD + 1 / 8 * REVERSE),
    ("alpha_beta", {"alpha": 1, "beta": 1}, (9 + 16 + 1) / 64 / 2),
    ("alpha_beta", {"alpha": 1, "beta": 2}, -(39 - 40 / 3 - 2 * 109 / 3) / 256 / 2),
    ("alpha_beta", {"alpha": 0, "beta": 2}, (-6 / 64 * log(2) + 9 / 8 * log(3) - 14 / 64) / 4),
    ("alpha_beta", {"alpha": 1, "beta": -1}, log(1 / 4) + log(3) + log(1 / 2) + (4 + 1 / 3 + 2) - 3),
    ("alpha_beta", {"alpha": 0, "beta": 0}, (log(4) ** 2 + log(3) ** 2 + log(2) ** 2) / 2),
    ("decoupled_kl", {}, LABEL_SHARE + OTHERS / 2),
    ("decoupled_kl", {"alpha": 0.0, "beta": 2.0}, 2 * OTHERS),
    (
        "taid",
        {"schedule": "fixed", "t_start": 0.5},
        (ROOTS[0] * log(8) + ROOTS[1] * log(4 / 3) + ROOTS[2] * log(8)) / sum(ROOTS),
    ),
    # √p is as (√2, 1, 1), √q as (1, √6, 1).
    (
        "curriculum_temperature",
        {"initial": 2.0},
        log((2 + sqrt(6)) / (2 + sqrt(2))) + (sqrt(2) * log(sqrt(2)) - log(sqrt(6))) / (2 + sqrt(2)),
    ),
    # Centred, p and its soft ranks (11/6, 4/3, 4/3) are as (2, -1, -1), q and (8/7, 31/14, 8/7) as (-1, 2, -1).
    ("correlation", {"rank_weight": 0.0}, 3 / 2),
    ("correlation", {}, 3.0),
    ("sorted_l1", {}, log(8) + 1.5 * (1 / 4 + 1 / 8 + 1 / 8)),
    # Without an origin nobody is the student: skew forward KL at λ = ⅓.
    ("contrastive_skew", {"skew": 1 / 3}, log(2) / 2 + log(3 / 7) / 4 + log(3 / 2) / 4),
    # The reward is log 4. A sample from ⅓p + ⅔q has the label with ¼, so that ρ = ½.
    ("policy_gradient", {}, -log(4)),
    ("policy_gradient", {"teacher_share": 1 / 3}, -log(4) / 2),
    ("policy_gradient", {"one_step": True}, REVERSE),
    ("policy_gradient", {"one_step": True, "teacher_share": 1 / 3}, REVERSE / 2),
]


@pytest.mark.parametrize(("name", "options", "constant"), CONSTANTS)
def test_value_equals_the_constant(name, options, constant):
    p, q = (torch.tensor([row], dtype=torch.float64).log() for row in (P, Q))
    value = get_loss(name, **options).per_token(LossInputs(q, p, torch.tensor([0])))
    assert value.item() == pytest.approx(constant, rel=1e-6)  # the learned temperature is float32


def test_comparative_equals_its_constants():
    """Against a uniform second position the differences are log p and -log p, up to a constant."""
    p, q = (torch.tensor([row, [1 / 3] * 3], dtype=torch.float64).log() for row in (P, Q))
    x = LossInputs(q, p, torch.tensor([0, 0]))
    inverse = 0.2 * log(0.2 * 13 / 6) + 0.4 * log(0.4 * 13) + 0.4 * log(0.4 * 13 / 6)  # (2, 4, 4)/10, (6, 1, 6)/13
    labels = [(log(8 / 3) + log(4 / 9) + log(8 / 3)) / 3, (log(13 / 18) + log(13 / 3) + log(13 / 18)) / 3]

    def value(**weights: float) -> list[float]:
        return get_loss("comparative", temperature=1.0, **weights).per_token(x).tolist()

    assert value(label_weight=0.0) == pytest.approx([FORWARD, inverse])
    assert value(teacher_weight=0.0) == pytest.approx(labels)
    assert value() == pytest.approx([FORWARD + labels[0], inverse + labels[1]])


def test_contrastive_skew_equals_its_constants_for_data_teacher_and_student():
    p, q = (torch.tensor([row] * 3, dtype=torch.float64).log() for row in (P, Q))
    x = LossInputs(q, p, torch.tensor([0, 0, 0]), author=torch.tensor([0, 1, 2]))
    forward = log(2) / 2 + log(3 / 7) / 4 + log(3 / 2) / 4
    reverse = log(1 / 3) / 8 + 3 * log(9 / 5) / 4 + log(3 / 5) / 8
    assert get_loss("contrastive_skew", skew=1 / 3).per_token(x).tolist() == pytest.approx([forward, forward, reverse])


def test_every_loss_has_a_constant():
    assert {name for name, _, _ in CONSTANTS} | {"comparative"} == set(LOSSES.names())
