"""Correlation distance (1 - Pearson(p, q)) + (1 - Spearman(p, q)) on the teacher's likeliest categories (R2KD).

Formula: `(1 - Pearson(p, q)) + (1 - Spearman(p, q))`, added to cross-entropy.

Code: Seonghak35/R2KD@9adc6f9bf206:mdistiller/distillers/R2KD.py and
Seonghak35/R2KD@9adc6f9bf206:mdistiller/engine/cfg.py.

Agreement: tests/losses/test_against_releases.py::test_the_correlations_are_those_of_scipy, the ranks with `softness`
near 0.

Differs: the release takes |cos(p, q)| without centring where Pearson centres, adds the same along the batch for every
class, and multiplies them by 2 T² with T = 4; ranks count 2 to that.

Differs: the ranks of the release come from sorting and have no gradient, so that its rank part moves no weight; here
ranks are soft (tests/losses/test_against_releases.py::test_ranks_by_sorting_have_no_gradient).

Differs: on a vocabulary the label, the teacher's likeliest tokens and the rest take the place of all classes.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from studykit.losses import LOG_FLOOR, LossInputs

LARGEST_RANKED = 64
"""Soft ranks compare all pairs of categories: with more than this many the memory grows and the ranks carry little."""

SMALLEST_NORM = 1e-6
"""A centred vector shorter than this is constant in float32, and correlates with nothing."""


def correlation(
    x: LossInputs,
    *,
    top_k: Annotated[int, Field(ge=2)] = 32,
    value_weight: float = 1.0,
    rank_weight: float = 1.0,
    softness: Annotated[float, Field(gt=0)] = 1.0,
) -> Tensor:
    """Return value_weight (1 - Pearson of p and q) + rank_weight (1 - Spearman), p the teacher and q the student.

    Prefer it for a noisy or pruned teacher: it compares the shape of p and not its exact values. The student's
    confidence is left free, so mix in cross-entropy and check the calibration. Temperatures above 1 help.

    Over a whole vocabulary Pearson's correlation depends on the largest entry alone. So the categories are the label,
    the teacher's likeliest others, top_k in all, and the sum of the rest; those impossible for both sides are left out.

    Args:
        x: `student_logp` and `teacher_logp` [N, C], and `target` [N].
        top_k: number of categories besides the rest, at least 2; ranks use at most 64 of them.
        value_weight: weight of the Pearson part.
        rank_weight: weight of the Spearman part.
        softness: divides log p in Spearman's soft ranks Σ_j sigmoid(log p_i - log p_j); towards 0 they become exact.

    Returns:
        float [N], no unit, in [0, 4] with both weights at 1. A constant p or q has correlation 0.

    Source:
        Kim, Ham, Cho, Kim (2024), Robustness-Reinforced Knowledge Distillation with Correlation Distance and Network
        Pruning, applied to tokens.

    Example:
        >>> p, q = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.3, 0.5]])
        >>> x = LossInputs(q.log(), p.log(), torch.tensor([0]))
        >>> correlation(x, rank_weight=0.0)            # centred (5, -1, -4)/30 and (-4, -1, 5)/30: 1 + 39/42
        tensor([1.9286])
    """
    p, q, counts = _fold(x, top_k)
    value = 1 - _pearson(p.exp(), q.exp(), counts)
    p, q, counts = _fold(x, LARGEST_RANKED) if top_k > LARGEST_RANKED else (p, q, counts)
    rank = 1 - _pearson(_soft_rank(p / softness, counts), _soft_rank(q / softness, counts), counts)
    return value_weight * value + rank_weight * rank


def _fold(x: LossInputs, k: int) -> tuple[Tensor, Tensor, Tensor]:
    p, q = x.teacher, x.student_logp
    if p.shape[1] > k + 1:
        listed = p.scatter(1, x.target[:, None], torch.inf).topk(k, dim=-1).indices
        p, q = _with_rest(p, listed), _with_rest(q, listed)
    counts = torch.maximum(p, q.detach()) > 0.99 * LOG_FLOOR
    return p, q, counts.to(p.dtype)


def _with_rest(logp: Tensor, listed: Tensor) -> Tensor:
    rest = logp.scatter(1, listed, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([logp.gather(1, listed), rest], dim=1)


def _soft_rank(logp: Tensor, counts: Tensor) -> Tensor:
    """Return rank i = Σ_j sigmoid(log p_i - log p_j), as in Qin, Liu, Li (2010), A General Approximation Framework for
    Direct Optimization of Information Retrieval Measures."""
    above = (logp[:, :, None] - logp[:, None, :]).sigmoid()
    return (above * counts[:, None, :]).sum(dim=-1)


def _pearson(a: Tensor, b: Tensor, counts: Tensor) -> Tensor:
    a, b = _centred(a, counts), _centred(b, counts)
    squares = (a.square().sum(dim=-1), b.square().sum(dim=-1))
    norms = [square.clamp(min=SMALLEST_NORM**2).sqrt() for square in squares]  # the gradient of a root at 0 is NaN
    return (a * b).sum(dim=-1) / (norms[0] * norms[1])


def _centred(values: Tensor, counts: Tensor) -> Tensor:
    mean = (values * counts).sum(dim=-1, keepdim=True) / counts.sum(dim=-1, keepdim=True)
    return (values - mean) * counts
