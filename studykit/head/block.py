"""The loss of a block of rows from its raw logits, with all derivatives: the part of the head that is compiled.

sums, value, grad, learned_grads = run_block(rules, raw, signal, rows, labels, wants_grad=True, learned=[])
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from studykit.losses import Loss, LossInputs
from studykit.models.projection import scale_and_softcap, scale_and_softcap_backward
from studykit.teacher.signal import Compared, TeacherSignal, log_softmax_backward

_COMPILED_VERSIONS = 64
"""Limit of compiled versions of a block in one process: a few for every divergence and kind of teacher."""


@dataclass(frozen=True)
class Labels:
    """The labels of N supervised positions.

    Attributes:
        target: int64 [N], token ids.
        sequence: int64 [N], the sequence of each position, for losses that look along it; None for a single one.
        author: int64 [N], who wrote each token, for losses that tell them apart; None for the data.
    """

    target: Tensor
    sequence: Tensor | None = None
    author: Tensor | None = None

    def at(self, rows: slice) -> "Labels":
        """Return the labels of some positions."""
        sequence = None if self.sequence is None else self.sequence[rows]
        return Labels(self.target[rows], sequence, None if self.author is None else self.author[rows])


@dataclass(frozen=True)
class Objective:
    """(1 - kd_ratio) * cross-entropy + kd_ratio * loss, at each position.

    Attributes:
        loss: from `get_loss`.
        kd_ratio: share of the loss, in [0, 1]; ignored by losses without a teacher.
        temperature: divides the logits of both sides in the loss; cross-entropy is at temperature 1.
        scale_by_t2: multiply the loss by temperature squared.
        progress: share of the stage's steps done, in [0, 1], for losses with a schedule.
    """

    loss: Loss
    kd_ratio: float = 1.0
    temperature: float = 1.0
    scale_by_t2: bool = False
    progress: float = 0.0

    def inputs(self, student_logp: Tensor, teacher_logp: Tensor | None, category: Tensor, labels: Labels) -> LossInputs:
        """Return the inputs of the loss."""
        return LossInputs(student_logp, teacher_logp, category, self.progress, labels.sequence, labels.author)


@dataclass(frozen=True)
class BlockRules:
    """How the loss of a block follows from the student's projection: all that the compiled work depends on."""

    objective: Objective
    logit_scale: float
    softcap: float | None


def run_block(
    rules: BlockRules,
    raw: Tensor,
    signal: TeacherSignal | None,
    rows: slice,
    labels: Labels,
    wants_grad: bool,
    learned: list[Tensor],
) -> tuple[dict[str, Tensor], Tensor, Tensor | None, list[Tensor]]:
    """Return sums to log, the sum of the loss, its derivative in raw logits [b, V], and those in learned parameters.

    Args:
        rules: the objective, and scale and cap of the logits.
        raw: the student's logits before scale and cap, [b, V].
        signal, rows: the teacher's signal of the whole chunk, or None; the rows of it that form this block.
        labels: of the block.
        wants_grad: whether derivatives are computed; otherwise they are None and empty.
        learned: parameters of the loss.
    """
    objective, target = rules.objective, labels.target
    logits = scale_and_softcap(raw, rules.logit_scale, rules.softcap)
    logp = logits.log_softmax(dim=-1)
    q = logp.exp()
    ce = -logp.gather(1, target[:, None]).sum()
    correct, tokens = (logits.max(dim=-1).indices == target).sum(), torch.ones_like(target).sum()
    sums = {"ce_loss": ce, "entropy": -(q * logp).sum(), "correct": correct, "tokens": tokens}
    if signal is None:
        x = objective.inputs(logp, None, target, labels)
        value, grad, learned_grads = _differentiate(objective.loss, x, wants_grad, learned)
        grad = None if grad is None else log_softmax_backward(grad, q)
    else:
        compared = signal.compare(rows, logits, logp, target, objective.temperature)
        kd, grad, learned_grads = _distillation(objective, compared, labels, wants_grad, learned)
        value, grad = _mix(objective.kd_ratio, kd, ce, grad, q, target)
        sums["kd_loss"] = kd
    if grad is not None:
        grad = scale_and_softcap_backward(grad, logits, rules.logit_scale, rules.softcap)
    return sums, value, grad, learned_grads


def _distillation(
    objective: Objective, compared: Compared, labels: Labels, wants_grad: bool, learned: list[Tensor]
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """Return the sum of the loss against the teacher, and `kd_ratio` times its derivatives in logits and learned."""
    x = objective.inputs(compared.student_logp, compared.teacher_logp, compared.target, labels)
    kd, grad, learned_grads = _differentiate(objective.loss, x, wants_grad, learned)
    t_squared = objective.temperature**2 if objective.scale_by_t2 else 1.0
    weight = objective.kd_ratio * t_squared
    if grad is not None:
        grad = compared.vjp(grad)
        grad = grad if weight == 1 else grad * weight
    return kd * t_squared, grad, [learned_grad * weight for learned_grad in learned_grads]


def _mix(
    kd_ratio: float, kd: Tensor, ce: Tensor, kd_grad: Tensor | None, q: Tensor, target: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return (1 - kd_ratio) * ce + kd_ratio * kd and its derivative in logits; `kd_grad` is scaled already."""
    if kd_ratio == 1:
        return kd, kd_grad
    value = (1 - kd_ratio) * ce + kd_ratio * kd
    if kd_grad is None:
        return value, None
    minus_one_at_label = (kd_ratio - 1) * torch.ones_like(q[:, :1])
    return value, kd_grad.add_(q, alpha=1 - kd_ratio).scatter_add_(1, target[:, None], minus_one_at_label)


def _differentiate(
    loss: Loss, x: LossInputs, wants_grad: bool, learned: list[Tensor]
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """Return the sum of the loss, its derivative in the student's log-probabilities [n, C], and those in `learned`."""
    if not wants_grad:
        return loss.per_token(x).sum(), None, []
    if loss.closed_form:
        value, grad = loss.value_and_grad(x)
        return value.sum(), grad, []
    student_logp = x.student_logp.detach().requires_grad_()
    with torch.enable_grad():
        value = loss.per_token(replace(x, student_logp=student_logp)).sum()
    grad, *learned_grads = torch.autograd.grad(value, [student_logp, *learned], materialize_grads=True)
    return value.detach(), grad, learned_grads


@cache
def compiled_block() -> Callable[..., tuple]:
    """Return `run_block` compiled into a few kernels; where it cannot be compiled, `run_block`."""
    from torch._dynamo import config  # on use: it takes a second to import
    from torch._dynamo.exc import TorchDynamoException

    config.recompile_limit = max(_COMPILED_VERSIONS, config.recompile_limit)
    work = torch.compile(run_block, dynamic=True)

    def compiled(*inputs: Any) -> tuple:
        nonlocal work
        try:
            return work(*inputs)
        except TorchDynamoException as error:
            if work is run_block:
                raise
            warnings.warn(f"the head is not compiled: {str(error).splitlines()[0]}", stacklevel=2)
            work = run_block
            return work(*inputs)

    return compiled
