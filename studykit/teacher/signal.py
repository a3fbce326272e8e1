"""The teacher's distribution at N supervised positions, in the form in which it is known, with one interface.

    signal = TeacherSignal.from_hidden(hidden, weight)          # live teacher: [N, Ht] x [V, Ht]
    signal = TeacherSignal.from_logits(logits)                  # [N, V]
    signal = TeacherSignal.from_top_k(ids, logp, tail)          # [N, K] cached, folded with a tail category [N, 1]
    signal = TeacherSignal.from_samples(ids, counts)            # [N, S] drawn with replacement
    signal = TeacherSignal.from_other_vocabulary(...)           # another tokenizer: columns are not the student's

The head takes the signal of a chunk of rows, `part = signal.at(rows, vocab_size)`, and compares it block by block:
`part.compare(rows, logits, logp, target, temperature)` gives both sides and the label over the same C categories, and
`vjp`, which takes a derivative in the student's log-probabilities of these to the one in the student's logits.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from studykit.losses import LOG_FLOOR
from studykit.models.projection import OutputHead, linear, scale_and_softcap


@dataclass(frozen=True)
class Compared:
    """Both sides over the same C categories, at n positions; here C is V and each token is a category.

    Attributes:
        student_logp: [n, C].
        teacher_logp: [n, C].
        target: int64 [n], the label's category.
        temperature: divides both sides' logits.
    """

    student_logp: Tensor
    teacher_logp: Tensor
    target: Tensor
    temperature: float

    def vjp(self, grad: Tensor) -> Tensor:
        """Return the derivative in the student's logits [n, V] of one in `student_logp` [n, C]."""
        return log_softmax_backward(grad, self.student_logp.exp(), self.temperature)


class TeacherSignal:
    """Base of all kinds; made by the static methods below."""

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
        part = self.at(rows, student_logits.shape[-1])
        logp = student_logits.log_softmax(dim=-1)
        compared = part.compare(slice(None), student_logits, logp, target, temperature)
        return compared.student_logp, compared.teacher_logp, compared.target

    def at(self, rows: slice, vocab_size: int, dtype: torch.dtype | None = None) -> "TeacherSignal":
        """Return the signal of some rows alone, with the teacher's projection computed for all of them at once.

        Args:
            rows: which of the N positions.
            vocab_size: number of the student's tokens that are compared.
            dtype: of the projection; None is the teacher's.
        """
        raise NotImplementedError

    def compare(self, rows: slice, logits: Tensor, logp: Tensor, target: Tensor, temperature: float) -> Compared:
        """Return both sides over the same categories.

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
        """Make a full signal from the teacher's hidden states [N, Ht] and head [V, Ht]; logits exist by chunks only."""
        return _Hidden(hidden.detach(), OutputHead(weight, bias, logit_scale, softcap).detach())

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
        """Make a full signal over the teacher's vocabulary; where not `known` (bool [N]) all probabilities are 0."""
        signal = _Hidden(hidden.detach(), OutputHead(weight, bias, logit_scale, softcap).detach())
        return _OtherVocabulary(signal, known, weight.shape[0])

    @staticmethod
    def from_top_k(ids: Tensor, logp: Tensor, tail: Tensor | None = None) -> "TeacherSignal":
        """Make a folded signal from the K largest log-probabilities [N, K] and their token ids; the rest is the tail.

        The folded divergence is a lower bound of the full one, and never negative as a truncated one would be. A
        temperature acts on the folded distribution of both sides.

        Args:
            ids: token ids [N, K].
            logp: their log-probabilities [N, K].
            tail: log-probability of all other tokens together [N, 1]. Without it the tail is 1 minus the K
                probabilities, where rounding matters if the tail is small: give it where it is known.
        """
        return _Folded(ids, logp.float(), None if tail is None else tail.float())

    @staticmethod
    def from_samples(ids: Tensor, counts: Tensor) -> "TeacherSignal":
        """Make a signal from S distinct sampled ids and their counts [N, S]; a count of 0 marks an unused entry.

        Source:
            Anshumann et al. (2025), Sparse Logit Sampling: counts / N give an unbiased gradient of the forward KL.
        """
        share = counts.float() / counts.sum(dim=-1, keepdim=True)
        no_tail = torch.full_like(share[:, :1], LOG_FLOOR)
        return _Folded(ids.masked_fill(counts == 0, -1), share.log().clamp(min=LOG_FLOOR), no_tail)


@dataclass(frozen=True)
class _Logits(TeacherSignal):
    logits: Tensor
    logit_scale: float = 1.0
    softcap: float | None = None

    def at(self, rows, vocab_size, dtype=None):
        return replace(self, logits=self.logits[rows, :vocab_size])

    def compare(self, rows, logits, logp, target, temperature):
        teacher_logits = scale_and_softcap(self.logits[rows], self.logit_scale, self.softcap).to(logits.dtype)
        student_logp = log_softmax_at_temperature(logits, temperature) if temperature != 1 else logp
        teacher_logp = log_softmax_at_temperature(teacher_logits, temperature).clamp_(min=LOG_FLOOR)
        return Compared(student_logp, teacher_logp, target, temperature)

    def to(self, device):
        return replace(self, logits=self.logits.to(device))


@dataclass(frozen=True)
class _Hidden(TeacherSignal):
    hidden: Tensor
    head: OutputHead

    def at(self, rows, vocab_size, dtype=None):
        head = self.head.first_rows(vocab_size)
        return _Logits(linear(self.hidden[rows], head.weight, head.bias, dtype), head.logit_scale, head.softcap)

    def to(self, device):
        return replace(self, hidden=self.hidden.to(device), head=self.head.to(device))


@dataclass(frozen=True)
class _OtherVocabulary(TeacherSignal):
    signal: TeacherSignal
    known: Tensor
    vocab_size: int

    def at(self, rows, vocab_size, dtype=None):
        return replace(self, signal=self.signal.at(rows, self.vocab_size, dtype), known=self.known[rows])

    def compare(self, rows, logits, logp, target, temperature):
        compared = self.signal.compare(rows, logits, logp, target, temperature)
        teacher_logp = compared.teacher_logp.masked_fill(~self.known[rows][:, None], LOG_FLOOR)
        return replace(compared, teacher_logp=teacher_logp)

    def to(self, device):
        return replace(self, signal=self.signal.to(device), known=self.known.to(device))


@dataclass(frozen=True)
class _Folded(TeacherSignal):
    ids: Tensor
    logp: Tensor
    tail: Tensor | None

    def at(self, rows, vocab_size, dtype=None):
        return _Folded(self.ids[rows], self.logp[rows], None if self.tail is None else self.tail[rows])

    def compare(self, rows, logits, logp, target, temperature):
        folding = _fold(self.ids[rows].long(), logp)
        teacher_logp = self.logp[rows].to(logits.dtype)
        tail = self._tail(rows, teacher_logp, vocab_size=logits.shape[1])
        teacher_logp = torch.cat([teacher_logp.masked_fill(folding.unused, LOG_FLOOR), tail], dim=-1)
        student_logp = folding.folded_logp()
        if temperature != 1:
            student_logp = log_softmax_at_temperature(student_logp, temperature)
            teacher_logp = log_softmax_at_temperature(teacher_logp, temperature)
        return _ComparedFolded(student_logp, teacher_logp, folding.category(target), temperature, folding)

    def _tail(self, rows: slice, teacher_logp: Tensor, vocab_size: int) -> Tensor:
        if self.tail is not None:
            return self.tail[rows].to(teacher_logp.dtype)
        if teacher_logp.shape[1] == vocab_size:  # no token is left for it
            return torch.full_like(teacher_logp[:, :1], LOG_FLOOR)
        return log_complement(teacher_logp)

    def to(self, device):
        tail = None if self.tail is None else self.tail.to(device)
        return _Folded(self.ids.to(device), self.logp.to(device), tail)


@dataclass(frozen=True)
class _Folding:
    """The student's distribution over V tokens, folded to K listed tokens and one category for the rest.

    Attributes:
        logp: the student's log-probabilities, [n, V].
        ids: the listed tokens, [n, K]; an unused entry repeats a used one.
        unused: bool [n, K].
        used: a used entry of each row, [n, 1].
        rest: log-probability of all tokens that are not listed, [n, 1].
    """

    logp: Tensor
    ids: Tensor
    unused: Tensor
    used: Tensor
    rest: Tensor

    def folded_logp(self) -> Tensor:
        """Return the log-probabilities of the K tokens and of the rest, [n, K + 1]."""
        return torch.cat([self.logp.gather(1, self.ids).masked_fill(self.unused, LOG_FLOOR), self.rest], dim=-1)

    def category(self, target: Tensor) -> Tensor:
        """Return the labels' categories, K for the rest, int64 [n]."""
        matches = (self.ids == target[:, None]) & ~self.unused
        return torch.where(matches.any(-1), matches.int().argmax(-1), self.ids.shape[-1])

    def vjp(self, grad: Tensor) -> Tensor:
        """Return the derivative in the student's logits [n, V] of one in the folded log-probabilities [n, K + 1].

        The derivative of the rest is shared out to its tokens by their probabilities.
        """
        grad_listed = grad[:, :-1].masked_fill(self.unused, 0)
        grad_rest = grad[:, -1:].masked_fill(self.rest <= LOG_FLOOR, 0)
        total = grad_listed.sum(dim=-1, keepdim=True) + grad_rest
        others = torch.addcmul((self.logp - self.rest).exp_().mul_(grad_rest), self.logp.exp(), total, value=-1)
        listed = grad_listed - self.logp.gather(1, self.ids).exp() * total
        return others.scatter(1, self.ids, torch.where(self.unused, listed.gather(1, self.used), listed))


@dataclass(frozen=True)
class _ComparedFolded(Compared):
    folding: _Folding

    def vjp(self, grad: Tensor) -> Tensor:
        if self.temperature != 1:
            grad = log_softmax_backward(grad, self.student_logp.exp(), self.temperature)
        return self.folding.vjp(grad)


def _fold(ids: Tensor, logp: Tensor) -> _Folding:
    """Fold log-probabilities [n, V] to the tokens of `ids` [n, K]; a negative id is an unused entry."""
    unused = ids < 0
    used = (~unused).int().argmax(dim=-1, keepdim=True)
    ids = torch.where(unused, ids.gather(1, used), ids)  # a repeated id changes neither the listed mass nor the rest
    rest = logp.scatter(1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True).clamp(min=LOG_FLOOR)
    return _Folding(logp, ids, unused, used, rest)


def log_complement(logp: Tensor) -> Tensor:
    """Return log(1 - Σ exp(logp)) per row, [N, 1]; the difference is at least the rounding error of float32.

    A tail of exactly 0 would make tokens impossible that the student may find likely, and KL(q‖p) would explode.

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
    in_scaled_logits = torch.addcmul(grad, q, grad.sum(dim=-1, keepdim=True), value=-1)
    return in_scaled_logits if temperature == 1 else in_scaled_logits / temperature
