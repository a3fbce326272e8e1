"""Skew forward KL on tokens of the teacher or the data, skew reverse KL on tokens of the student (DistiLLM-2).

Formula: `KL(p‖λp + (1-λ)q)` at the tokens of the teacher's answer plus `KL(q‖(1-λ)p + λq)` at those of the student's.

Code: jongwooko/distillm-2 was not seen; a copy of its trainer was:
wind123mountain/NNM@599fdee9cd70:src/distillm_trainer.py.

Agreement: tests/losses/test_contrastive_skew.py::test_values_of_mixed_authors_equal_the_slow_reference.

Differs: the copy holds q in the mixture of its reverse part constant, which gives another gradient
(tests/losses/test_against_releases.py::test_a_mixture_held_constant_changes_the_gradient_of_the_skew_reverse_kl).

Differs: the copy fits λ to every answer within [0.01, 0.1], can shift weight to the student's answers as training goes
on, and averages each answer before the batch; here λ and weights are fixed and every token counts alike.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from studykit.losses import Author, LossInputs
from studykit.losses.skew_forward_kl import skew_forward_kl
from studykit.losses.skew_forward_kl import value_and_grad as forward_value_and_grad
from studykit.losses.skew_reverse_kl import skew_reverse_kl
from studykit.losses.skew_reverse_kl import value_and_grad as reverse_value_and_grad


def contrastive_skew(x: LossInputs, *, skew: Annotated[float, Field(ge=0, lt=1)] = 0.1) -> Tensor:
    """Return KL(p ‖ λp + (1-λ)q) for tokens of the teacher or the data, KL(q ‖ (1-λ)p + λq) for those of the student.

    The first raises the probability of the teacher's tokens, the second lowers that of the student's. Prefer it with a
    rollout that trains on both answers to a prompt; on answers of one author it is the skew KL of that author.

    Args:
        x: `student_logp` and `teacher_logp` [N, C]; `author` [N]; without it no token counts as the student's.
        skew: weight λ of the other distribution in the mixture, in [0, 1).

    Returns:
        float [N], nats, at least 0.

    Source:
        Ko et al. (2025), DistiLLM-2: A Contrastive Approach Boosts the Distillation of LLMs, equation 5, with a fixed
        λ.

    Example:
        >>> p, q = torch.tensor([[0.75, 0.25]] * 2), torch.tensor([[0.25, 0.75]] * 2)
        >>> x = LossInputs(q.log(), p.log(), torch.tensor([0, 0]), author=torch.tensor([1, 2]))
        >>> contrastive_skew(x, skew=0.5)              # both mixtures are (½, ½): ¾ log 1½ + ¼ log ½
        tensor([0.1308, 0.1308])
    """
    forward, reverse = skew_forward_kl(x, skew=skew), skew_reverse_kl(x, skew=skew)
    return forward if x.author is None else torch.where(x.author == Author.STUDENT, reverse, forward)


def value_and_grad(x: LossInputs, *, skew: float = 0.1) -> tuple[Tensor, Tensor]:
    """Return the divergence [N] and its derivative in log q [N, C], by the author of each position."""
    forward, grad = forward_value_and_grad(x, skew=skew)
    if x.author is None:
        return forward, grad
    reverse, other = reverse_value_and_grad(x, skew=skew)
    by_student = x.author == Author.STUDENT
    return torch.where(by_student, reverse, forward), torch.where(by_student[:, None], other, grad)
