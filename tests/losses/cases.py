"""What is claimed of each loss, for the tests over all of them, and random inputs to try it on."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from studykit.losses import LOG_FLOOR, Loss, LossInputs, get_loss


@dataclass(frozen=True)
class Case:
    """A loss with options, and what its definition promises at q = p."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    zero_value: bool = True
    zero_gradient: bool = True
    differentiable: bool = True
    """False where the definition holds something constant, so that finite differences see another function."""
    nonnegative: bool = True
    """False for a surrogate: its gradient alone has a meaning, and its value goes either way."""
    rounding: float = 1e-10
    """How far the value may be from the reference's, as a share."""

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items())])

    def make(self) -> Loss:
        return get_loss(self.name, **self.options)


def variants(name: str, *options: dict[str, Any], **claims: Any) -> list[Case]:
    return [Case(name, chosen, **claims) for chosen in options]


ANSWERS = {"discount": 1.0, "length_normalised": True}
# At q = p each reward is log p - log q = 0, to the last bit, so that whitening finds nothing to blow up, and there the
# exact one-step term is at its minimum: value and gradient are promised to be zero. Rewards and the denominator of ρ
# are held constant, and rewards have both signs.
SURROGATE = {"differentiable": False, "nonnegative": False}

CASES = [
    *variants("cross_entropy", {}, zero_value=False, zero_gradient=False),
    *variants("forward_kl", {}),
    *variants("reverse_kl", {}),
    *variants("jsd", {}, {"beta": 0}, {"beta": 0.1, "rescale": True}, {"beta": 1}),
    *variants("skew_forward_kl", {}, {"skew": 0.0}, {"skew": 0.7}),
    *variants("skew_reverse_kl", {}, {"skew": 0.0}, {"skew": 0.7}),
    *variants("total_variation", {}),
    *variants("adaptive_kl", {}, {"mu": 0.0}, {"mu": 0.8}, differentiable=False),
    *variants("alpha_beta", {}, {"alpha": 0.5, "beta": 0.5}, {"alpha": -0.2, "beta": 1.0}, {"alpha": 2, "beta": -0.5}),
    *variants("alpha_beta", {"alpha": 0, "beta": 0.6}, {"alpha": 0.6, "beta": 0}, {"alpha": 0.5, "beta": -0.5}),
    *variants("alpha_beta", {"alpha": 0, "beta": 0}),
    *variants("decoupled_kl", {}, {"alpha": 0.3, "beta": 2.0}),
    *variants("taid", {}, {"schedule": "fixed", "t_start": 0.8}, zero_value=False, differentiable=False),
    *variants("curriculum_temperature", {}, {"initial": 4.0, "scale_by_t2": True}),
    *variants("correlation", {}, {"top_k": 4}, {"top_k": 3, "value_weight": 0.0, "softness": 0.5}),
    *variants("comparative", {"label_weight": 0.0}, {"label_weight": 0.0, "top_k": 3, "partners": 2, "clip": 2.0}),
    *variants("comparative", {}, {"top_k": 3, "temperature": 3.0}, zero_value=False, zero_gradient=False),
    *variants("sorted_l1", {}, {"weight": 0.5}, zero_value=False, zero_gradient=False),
    *variants("contrastive_skew", {}, {"skew": 0.0}, {"skew": 0.7}),
    *variants("policy_gradient", {}, {"discount": 0.5}, ANSWERS, {"teacher_share": 0.2, "clip": 0.1}, **SURROGATE),
    *variants("policy_gradient", {"one_step": True}, {**ANSWERS, "one_step": True, "teacher_share": 0.2}, **SURROGATE),
    # Whitening divides by the deviation + 1e-8.
    *variants("policy_gradient", {"whiten": True}, rounding=1e-6, **SURROGATE),
    *variants("policy_gradient", {**ANSWERS, "one_step": True, "whiten": True}, rounding=1e-6, **SURROGATE),
]

ROWS, CATEGORIES = 6, 9


def inputs(seed: int = 0, rows: int = ROWS, categories: int = CATEGORIES) -> tuple[Tensor, Tensor, Tensor]:
    """Return student logits that want a gradient, teacher log-probabilities and labels, float64."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, rows, categories, generator=generator, dtype=torch.float64) * 1.5
    target = torch.randint(categories, (rows,), generator=generator)
    return student.requires_grad_(), teacher.log_softmax(-1), target


def values(loss: Loss, logits: Tensor, teacher_logp: Tensor, target: Tensor, progress: float = 0.0) -> Tensor:
    return loss.per_token(LossInputs(logits.log_softmax(-1), teacher_logp, target, progress))


def with_zeros(teacher_logp: Tensor, zero: Tensor) -> Tensor:
    """Return the teacher with some probabilities set to 0 and the others renormalised."""
    return teacher_logp.masked_fill(zero, -torch.inf).log_softmax(-1).clamp(min=LOG_FLOOR)
