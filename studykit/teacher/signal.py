"""What a teacher says at N supervised positions, in whichever form it is known, behind one face.

    signal = TeacherSignal.from_hidden(hidden, weight)          # live teacher: [N, Ht] x [V, Ht]
    signal = TeacherSignal.from_logits(logits)                  # [N, V]
    signal = TeacherSignal.from_top_k(ids, logp, tail)          # [N, K] cached, folded with a tail category [N, 1]
    signal = TeacherSignal.from_samples(ids, counts)            # [N, S] drawn with replacement
    signal = TeacherSignal.from_other_vocabulary(...)           # another tokenizer: columns are not the student's

The head asks for a slice of rows at a time: `inputs(rows, student_logits, target, temperature)` returns student and
teacher log-probabilities and the label over the same C categories.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from studykit.losses import LOG_FLOOR
from studykit.models import project


class TeacherSignal:
    """Base of all kinds; made by the four class methods below."""

    def inputs(
        self, rows: slice, student_logits: Tensor, target: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return `student_logp` [n, C], `teacher_logp` [n, C] and `target` [n] in the signal's categories.

        Args:
            rows: which of the N positions.
            student_logits: [n, V], with gradient.
            target: int64 [n], token ids.
            temperature: divides both sides' logits.
        """
        raise NotImplementedError

    def to(self, device: torch.device) -> Self:
        """Return the signal on a device."""
        raise NotImplementedError

    @staticmethod
    def from_hidden(
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        logit_scale: float = 1.0,
        softcap: float | None = None,
    ) -> "TeacherSignal":
        """Make a full signal from the teacher's hidden states [N, Ht] and head [V, Ht]; its logits are never kept."""
        return _Hidden(hidden.detach(), weight.detach(), None if bias is None else bias.detach(), logit_scale, softcap)

    @staticmethod
    def from_logits(logits: Tensor) -> "TeacherSignal":
        """Make a full signal from logits [N, V]."""
        return _Logits(logits.detach())

    @staticmethod
    def from_other_vocabulary(
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        known: Tensor,
        *,
        logit_scale: float = 1.0,
        softcap: float | None = None,
    ) -> "TeacherSignal":
        """Make a full signal over the teacher's own vocabulary; where not `known` (bool [N]) it has no mass at all."""
        made = _Hidden(hidden.detach(), weight.detach(), None if bias is None else bias.detach(), logit_scale, softcap)
        return _Other(made, known)

    @staticmethod
    def from_top_k(ids: Tensor, logp: Tensor, tail: Tensor | None = None) -> "TeacherSignal":
        """Make a folded signal from the K largest log-probabilities [N, K] and their token ids; the rest is the tail.

        The folded divergence is a lower bound of the full one, and never negative as a truncated one would be. A
        temperature acts on the folded distribution, on both sides alike.

        Args:
            ids: token ids [N, K].
            logp: their log-probabilities [N, K].
            tail: log-probability of all other tokens together [N, 1]. Without it the tail is what the K leave of 1,
                which rounding spoils where it is small: give it wherever it is known.
        """
        return _Folded(ids, logp.float(), None if tail is None else tail.float())

    @staticmethod
    def from_samples(ids: Tensor, counts: Tensor) -> "TeacherSignal":
        """Make a signal from S distinct sampled ids and their counts [N, S]; a count of 0 marks an unused place.

        Source:
            Anshumann et al. (2025), Sparse Logit Sampling: counts / N give an unbiased gradient of the forward KL.
        """
        share = counts.float() / counts.sum(dim=-1, keepdim=True)
        nothing = torch.full_like(share[:, :1], LOG_FLOOR)
        return _Folded(ids.masked_fill(counts == 0, -1), share.log().clamp(min=LOG_FLOOR), nothing)


@dataclass(frozen=True)
class _Logits(TeacherSignal):
    logits: Tensor

    def inputs(self, rows, student_logits, target, temperature):
        return _dense(self.logits[rows], student_logits, target, temperature)

    def to(self, device):
        return _Logits(self.logits.to(device))


@dataclass(frozen=True)
class _Hidden(TeacherSignal):
    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    logit_scale: float
    softcap: float | None

    def inputs(self, rows, student_logits, target, temperature):
        vocabulary = student_logits.shape[-1]
        bias = None if self.bias is None else self.bias[:vocabulary]
        logits = project(self.hidden[rows], self.weight[:vocabulary], bias, self.logit_scale, self.softcap)
        return _dense(logits, student_logits, target, temperature)

    def to(self, device):
        bias = None if self.bias is None else self.bias.to(device)
        return _Hidden(self.hidden.to(device), self.weight.to(device), bias, self.logit_scale, self.softcap)


@dataclass(frozen=True)
class _Other(TeacherSignal):
    own: _Hidden
    known: Tensor

    def inputs(self, rows, student_logits, target, temperature):
        own = self.own
        logits = project(own.hidden[rows], own.weight, own.bias, own.logit_scale, own.softcap)
        teacher_logp = (logits.to(student_logits.dtype) / temperature).log_softmax(dim=-1).clamp(min=LOG_FLOOR)
        teacher_logp = teacher_logp.masked_fill(~self.known[rows][:, None], LOG_FLOOR)
        return (student_logits / temperature).log_softmax(dim=-1), teacher_logp, target

    def to(self, device):
        return _Other(self.own.to(device), self.known.to(device))


@dataclass(frozen=True)
class _Folded(TeacherSignal):
    ids: Tensor
    logp: Tensor
    tail: Tensor | None

    def inputs(self, rows, student_logits, target, temperature):
        ids, teacher_logp = self.ids[rows].long(), self.logp[rows].to(student_logits.dtype)
        unused = ids < 0
        ids = ids.clamp(min=0)
        if self.tail is not None:
            tail = self.tail[rows].to(student_logits.dtype)
        elif ids.shape[1] == student_logits.shape[1]:
            tail = torch.full_like(teacher_logp[:, :1], LOG_FLOOR)  # no token is left for it
        else:
            tail = log_complement(teacher_logp)
        teacher_logp = torch.cat([teacher_logp.masked_fill(unused, LOG_FLOOR), tail], dim=-1)
        student_logp = _fold(student_logits.log_softmax(dim=-1), ids, unused)
        matches = (ids == target[:, None]) & ~unused
        label = torch.where(matches.any(-1), matches.int().argmax(-1), ids.shape[-1])
        if temperature != 1:
            teacher_logp = (teacher_logp / temperature).log_softmax(dim=-1)
            student_logp = (student_logp / temperature).log_softmax(dim=-1)
        return student_logp, teacher_logp, label

    def to(self, device):
        tail = None if self.tail is None else self.tail.to(device)
        return _Folded(self.ids.to(device), self.logp.to(device), tail)


def log_complement(logp: Tensor) -> Tensor:
    """Return log(1 - Σ exp(logp)) per row, [N, 1]; where rounding leaves less, the rounding of float32 stands for it.

    A tail of exactly 0 would call tokens impossible that the student may well find likely, and make KL(q‖p) explode.

    >>> log_complement(torch.tensor([[0.5, 0.25]]).log()).exp()
    tensor([[0.2500]])
    """
    rest = -torch.expm1(logp.logsumexp(dim=-1, keepdim=True))
    return rest.clamp(min=torch.finfo(torch.float32).eps).log()


def _dense(teacher_logits: Tensor, student_logits: Tensor, target: Tensor, temperature: float):
    vocabulary = student_logits.shape[-1]
    teacher_logits = teacher_logits[:, :vocabulary].to(student_logits.dtype)
    student_logp = (student_logits / temperature).log_softmax(dim=-1)
    return student_logp, (teacher_logits / temperature).log_softmax(dim=-1).clamp(min=LOG_FLOOR), target


def _fold(logp: Tensor, ids: Tensor, unused: Tensor) -> Tensor:
    """Gather the ids' log-probabilities and put the rest of the mass, summed exactly, behind them, [n, K + 1]."""
    kept = logp.gather(1, ids)
    if unused.any():
        # Scatter with a value per place would let an unused place (id 0) hide a used one: count the places instead.
        used = torch.zeros_like(logp, dtype=torch.int32).scatter_add_(1, ids, (~unused).int()) > 0
        kept = kept.masked_fill(unused, LOG_FLOOR)
    else:
        used = torch.zeros_like(logp, dtype=torch.bool).scatter_(1, ids, True)
    tail = logp.masked_fill(used, -math.inf).clamp(min=LOG_FLOOR).logsumexp(dim=-1, keepdim=True)
    return torch.cat([kept, tail], dim=-1)
