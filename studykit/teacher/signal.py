"""What a teacher says at N supervised positions, in whichever form it is known, behind one face.

    signal = TeacherSignal.from_hidden(hidden, weight)          # live teacher: [N, Ht] x [V, Ht]
    signal = TeacherSignal.from_logits(logits)                  # [N, V]
    signal = TeacherSignal.from_top_k(ids, logp, tail)          # [N, K] cached, folded with a tail category [N, 1]
    signal = TeacherSignal.from_samples(ids, counts)            # [N, S] drawn with replacement
    signal = TeacherSignal.from_other_vocabulary(...)           # another tokenizer: columns are not the student's

The head asks for a chunk of rows, `here = signal.at(rows, vocabulary)`, and then block by block for
`here.compare(rows, logits, logp, target, temperature)`: both sides and the label over the same C categories, and the
way back from a derivative in these to one in the student's logits.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from studykit.losses import LOG_FLOOR
from studykit.models.projection import linear, scale_and_softcap


class Compared(NamedTuple):
    """Both sides over the same C categories, at n positions.

    Attributes:
        student_logp: [n, C].
        teacher_logp: [n, C].
        target: int64 [n], the label's category.
        back: takes a derivative in `student_logp` [n, C] to the one in the student's logits [n, V].
    """

    student_logp: Tensor
    teacher_logp: Tensor
    target: Tensor
    back: Callable[[Tensor], Tensor]


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
        here = self.at(rows, student_logits.shape[-1])
        return here.compare(slice(None), student_logits, student_logits.log_softmax(dim=-1), target, temperature)[:3]

    def at(self, rows: slice, vocab_size: int, dtype: torch.dtype | None = None) -> "TeacherSignal":
        """Return the signal of some rows alone, with its projection made for all of them at once.

        Args:
            rows: which of the N positions.
            vocab_size: the student's rows that are compared.
            dtype: what a projection computes in; None is the teacher's own.
        """
        raise NotImplementedError

    def compare(self, rows: slice, logits: Tensor, logp: Tensor, target: Tensor, temperature: float) -> Compared:
        """Put both sides on the same categories.

        Args:
            rows: which of the positions of a signal that `at` has returned.
            logits: the student's, [n, V].
            logp: their log-softmax, [n, V].
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
        return _Other(made, known, weight.shape[0])

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
    logit_scale: float = 1.0
    softcap: float | None = None

    def at(self, rows, vocab_size, dtype=None):
        return replace(self, logits=self.logits[rows, :vocab_size])

    def compare(self, rows, logits, logp, target, temperature):
        own = scale_and_softcap(self.logits[rows], self.logit_scale, self.softcap).to(logits.dtype)
        student_logp = log_softmax_at_temperature(logits, temperature) if temperature != 1 else logp
        teacher_logp = log_softmax_at_temperature(own, temperature).clamp_(min=LOG_FLOOR)

        def back(grad: Tensor) -> Tensor:
            return log_softmax_backward(grad, student_logp.exp(), temperature)

        return Compared(student_logp, teacher_logp, target, back)

    def to(self, device):
        return replace(self, logits=self.logits.to(device))


@dataclass(frozen=True)
class _Hidden(TeacherSignal):
    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    logit_scale: float
    softcap: float | None

    def at(self, rows, vocab_size, dtype=None):
        weight, bias = self.weight[:vocab_size], None if self.bias is None else self.bias[:vocab_size]
        return _Logits(linear(self.hidden[rows], weight, bias, dtype), self.logit_scale, self.softcap)

    def to(self, device):
        bias = None if self.bias is None else self.bias.to(device)
        return replace(self, hidden=self.hidden.to(device), weight=self.weight.to(device), bias=bias)


@dataclass(frozen=True)
class _Other(TeacherSignal):
    own: TeacherSignal
    known: Tensor
    rows: int

    def at(self, rows, vocab_size, dtype=None):
        return replace(self, own=self.own.at(rows, self.rows, dtype), known=self.known[rows])

    def compare(self, rows, logits, logp, target, temperature):
        both = self.own.compare(rows, logits, logp, target, temperature)
        return both._replace(teacher_logp=both.teacher_logp.masked_fill(~self.known[rows][:, None], LOG_FLOOR))

    def to(self, device):
        return replace(self, own=self.own.to(device), known=self.known.to(device))


@dataclass(frozen=True)
class _Folded(TeacherSignal):
    ids: Tensor
    logp: Tensor
    tail: Tensor | None

    def at(self, rows, vocab_size, dtype=None):
        return _Folded(self.ids[rows], self.logp[rows], None if self.tail is None else self.tail[rows])

    def compare(self, rows, logits, logp, target, temperature):
        ids, teacher_logp = self.ids[rows].long(), self.logp[rows].to(logits.dtype)
        unused = ids < 0
        used = (~unused).int().argmax(dim=-1, keepdim=True)
        ids = torch.where(
            unused, ids.gather(1, used), ids
        )  # repeated, it changes neither what is kept nor what is left
        if self.tail is not None:
            tail = self.tail[rows].to(logits.dtype)
        elif ids.shape[1] == logits.shape[1]:
            tail = torch.full_like(teacher_logp[:, :1], LOG_FLOOR)  # no token is left for it
        else:
            tail = log_complement(teacher_logp)
        teacher_logp = torch.cat([teacher_logp.masked_fill(unused, LOG_FLOOR), tail], dim=-1)
        rest = logp.scatter(1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True).clamp(min=LOG_FLOOR)
        folded = torch.cat([logp.gather(1, ids).masked_fill(unused, LOG_FLOOR), rest], dim=-1)
        matches = (ids == target[:, None]) & ~unused
        label = torch.where(matches.any(-1), matches.int().argmax(-1), ids.shape[-1])
        student_logp = folded
        if temperature != 1:
            student_logp, teacher_logp = (
                log_softmax_at_temperature(side, temperature) for side in (folded, teacher_logp)
            )

        def back(grad: Tensor) -> Tensor:
            if temperature != 1:
                grad = log_softmax_backward(grad, student_logp.exp(), temperature)
            return _unfold(grad, logp, rest, ids, unused, used)

        return Compared(student_logp, teacher_logp, label, back)

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


def log_softmax_at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return log softmax(logits / temperature), [n, C]."""
    return (logits if temperature == 1 else logits / temperature).log_softmax(dim=-1)


def log_softmax_backward(grad: Tensor, q: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the derivative in logits of one in log q, q = softmax(logits / temperature), [n, C].

    >>> log_softmax_backward(torch.tensor([[-1.0, 0.0]]), torch.tensor([[0.25, 0.75]]))
    tensor([[-0.7500,  0.7500]])
    """
    passed = torch.addcmul(grad, q, grad.sum(dim=-1, keepdim=True), value=-1)
    return passed if temperature == 1 else passed / temperature


def _unfold(grad: Tensor, logp: Tensor, rest: Tensor, ids: Tensor, unused: Tensor, used: Tensor) -> Tensor:
    """Return the derivative in logits [n, V] of one in what `ids` keep of `logp` and the rest, [n, K + 1].

    A token of the rest takes its share of the rest's derivative, a kept token its own.
    """
    kept, left = grad[:, :-1].masked_fill(unused, 0), grad[:, -1:].masked_fill(rest <= LOG_FLOOR, 0)
    total = kept.sum(dim=-1, keepdim=True) + left
    passed = torch.addcmul((logp - rest).exp_().mul_(left), logp.exp(), total, value=-1)
    own = kept - logp.gather(1, ids).exp() * total
    return passed.scatter(1, ids, torch.where(unused, own.gather(1, used), own))
