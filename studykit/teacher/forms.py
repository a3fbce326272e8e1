"""What is kept of a teacher's distribution in the cache: its k likeliest tokens and a tail, or counts of sampled ids.

A form turns log-probabilities into tensors that a shard stores, cuts them into the rows they belong to, and turns rows
back into a `TeacherSignal`.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from studykit.losses import LOG_FLOOR
from studykit.teacher.signal import TeacherSignal

_HALF_FLOOR = -6e4
"""Stands for log 0 in float16."""

Entry = tuple[Tensor, ...]


class Form(Protocol):
    """What a cached teacher needs to know of a form.

    Attributes:
        key: what tells one form's entries from another's, as plain JSON data.
        names: of the tensors in a shard.
        tolerance: how far a stored probability may lie from the live teacher's, whose sums depend on the batch.
    """

    key: list
    names: tuple[str, ...]
    tolerance: float

    def noise(self, keys: Sequence[str], counts: Sequence[int]) -> Tensor:
        """Return the randomness of sequences with these keys and numbers of positions, float64 [n, draws]."""
        ...

    def keep(self, logp: Tensor, noise: Tensor) -> Entry:
        """Return what is stored of log-probabilities [n, V]."""
        ...

    def split(self, tensors: Entry, counts: list[int]) -> list[Entry]:
        """Cut what is stored into sequences of so many positions."""
        ...

    def signal(self, entries: Sequence[Entry]) -> TeacherSignal:
        """Return what the teacher says at the positions of these sequences."""
        ...

    def shares(self, entries: Sequence[Entry]) -> Tensor:
        """Return probabilities by token id, and what is left at the end, float [n, V + 1]."""
        ...


class TopK:
    """The k largest probabilities and the mass of all others, in float16: unbiased in no divergence, a bound of each.

    Args:
        k: tokens kept per position.
        vocabulary: rows of the shared vocabulary.
    """

    names: tuple[str, ...] = ("ids", "logp")

    def __init__(self, k: int, vocabulary: int):
        self.k, self.vocabulary = min(k, vocabulary), vocabulary
        self.key = [self.k]
        self.tolerance = 0.02

    def noise(self, keys: Sequence[str], counts: Sequence[int]) -> Tensor:
        """Return nothing: no draw is made."""
        return torch.zeros(sum(counts), 0)

    def keep(self, logp: Tensor, noise: Tensor) -> Entry:
        """Return ids [n, K] and log-probabilities with the tail's behind them [n, K + 1]."""
        top, ids = logp.topk(self.k, dim=-1)
        # What float16 leaves of 1 is noise where the tail is small: it is summed here and kept.
        tail = logp.scatter(1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
        return small(ids, self.vocabulary), torch.cat([top, tail], dim=-1).clamp(min=_HALF_FLOOR).half().cpu()

    def split(self, tensors: Entry, counts: list[int]) -> list[Entry]:
        """Cut by position."""
        return list(zip(*(tensor.split(counts) for tensor in tensors), strict=True))

    def signal(self, entries: Sequence[Entry]) -> TeacherSignal:
        """Return the folded signal."""
        ids, logp = (torch.cat(parts) for parts in zip(*entries, strict=True))
        logp = logp.float().masked_fill(logp <= _HALF_FLOOR, LOG_FLOOR)
        return TeacherSignal.from_top_k(ids, logp[:, :-1], logp[:, -1:])

    def shares(self, entries: Sequence[Entry]) -> Tensor:
        """Return the kept probabilities, and the tail's."""
        ids, logp = (torch.cat(parts) for parts in zip(*entries, strict=True))
        spread = torch.zeros(len(ids), self.vocabulary + 1)
        spread.scatter_(1, ids.long(), logp[:, :-1].float().exp())
        spread[:, -1] = logp[:, -1].float().exp()
        return spread


class Samples:
    """Ids drawn with replacement, and how often each: fewer bytes, and right on average for the forward KL.

    What is drawn at a position depends on the sequence and the distribution alone, so that asking again gives the same.

    Args:
        n: draws per position, at most 255.
        vocabulary: rows of the shared vocabulary.

    Source:
        Anshumann et al. (2025), Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs.
    """

    names: tuple[str, ...] = ("ids", "counts", "distinct")

    def __init__(self, n: int, vocabulary: int):
        self.n, self.vocabulary = n, vocabulary
        self.key = ["samples", n]
        self.tolerance = 2.5 / n  # rounding may move a draw or two to the next token

    def noise(self, keys: Sequence[str], counts: Sequence[int]) -> Tensor:
        """Return uniform numbers that depend on the sequences alone."""
        made = [torch.Generator().manual_seed(int(key[:15], 16)) for key in keys]
        parts = [torch.rand(m, self.n, generator=g, dtype=torch.float64) for g, m in zip(made, counts, strict=True)]
        return torch.cat(parts)

    def keep(self, logp: Tensor, noise: Tensor) -> Entry:
        """Return distinct ids and their counts, position after position [M], and how many each position has [n]."""
        mass = logp.double().exp().cumsum(dim=-1)
        drawn = torch.searchsorted(mass, noise.to(mass.device) * mass[:, -1:], right=True)
        drawn = drawn.clamp(max=self.vocabulary - 1).sort(dim=-1).values
        first = torch.ones_like(drawn, dtype=torch.bool)
        first[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
        starts = first.flatten().nonzero()[:, 0]
        counts = torch.diff(starts, append=starts.new_tensor([drawn.numel()]))
        ids = small(drawn[first], self.vocabulary)
        return ids, counts.to(torch.uint8).cpu(), first.sum(dim=-1).to(torch.uint8).cpu()

    def split(self, tensors: Entry, counts: list[int]) -> list[Entry]:
        """Cut by position, each with its own number of ids."""
        ids, often, distinct = tensors
        positions = distinct.split(counts)
        sizes = [int(part.sum()) for part in positions]
        return list(zip(ids.split(sizes), often.split(sizes), positions, strict=True))

    def signal(self, entries: Sequence[Entry]) -> TeacherSignal:
        """Return the sampled signal."""
        ids, counts, distinct = self._wide(entries)
        used = torch.arange(ids.shape[1]) < distinct[:, None]
        return TeacherSignal.from_samples(ids, counts * used)

    def shares(self, entries: Sequence[Entry]) -> Tensor:
        """Return counts divided by the number of draws; nothing is left."""
        ids, counts, _ = self._wide(entries)
        spread = torch.zeros(len(ids), self.vocabulary + 1)
        return spread.scatter_add_(1, ids.long(), counts.float() / self.n)

    def _wide(self, entries: Sequence[Entry]) -> Entry:
        ids, counts, distinct = (torch.cat(parts) for parts in zip(*entries, strict=True))
        distinct = distinct.long()
        used = torch.arange(int(distinct.max())) < distinct[:, None]
        wide = torch.zeros(2, *used.shape, dtype=torch.int32)
        wide[0][used], wide[1][used] = ids.int(), counts.int()
        return wide[0], wide[1], distinct


def small(ids: Tensor, vocabulary: int) -> Tensor:
    """Return token ids on the CPU in two bytes where they fit, else in four."""
    return ids.to(torch.int16 if vocabulary < 2**15 else torch.int32).cpu()
