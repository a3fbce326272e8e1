"""What is kept of a teacher's distribution in the cache: its k likeliest tokens and a tail, or counts of sampled ids.

A form turns log-probabilities into the bytes of each sequence, and the bytes of several sequences into a
`TeacherSignal`. Token ids are kept in planes: the low 16 bits of each, then what is above them, in 2 bits an id up to
262,144 tokens and in 8 beyond.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from studykit.losses import LOG_FLOOR
from studykit.teacher.signal import TeacherSignal

_HALF_FLOOR = -6e4
"""Stands for log 0 in float16."""

Kept = tuple[Tensor, ...]
Parts = Sequence[np.ndarray]
"""The bytes of sequences, uint8 [bytes] each."""


@dataclass(frozen=True)
class KeptProbs:
    """Probabilities of the tokens that are kept by themselves, and of the rest.

    Attributes:
        tokens: ids [n, K]; -1 where a place is unused.
        p: their probabilities [n, K].
        left: of all other tokens together [n].
        most: what a token that is not kept may have at most [n].
    """

    tokens: Tensor
    p: Tensor
    left: Tensor
    most: Tensor

    def distance(self, other: "KeptProbs") -> float:
        """Return by how much a probability differs at least; a token that one side has not kept may be near there."""
        if len(self.tokens) != len(other.tokens):
            return 1.0
        sides = (self.left - other.left).abs(), self._beyond(other), other._beyond(self)
        return max((float(side.max()) for side in sides if side.numel()), default=0.0)

    def _beyond(self, other: "KeptProbs") -> Tensor:
        (mine, p), (theirs, q) = self._flat(), other._flat()
        order = theirs.argsort()
        at = torch.searchsorted(theirs[order], mine).clamp(max=len(theirs) - 1)
        unknown = torch.minimum(p, other.most[mine // _FAR])
        return (p - torch.where(theirs[order][at] == mine, q[order][at], unknown)).abs()

    def _flat(self) -> tuple[Tensor, Tensor]:
        used = self.tokens >= 0
        rows = torch.arange(len(self.tokens))[:, None].expand_as(self.tokens)
        return (rows * _FAR + self.tokens)[used], self.p[used]


_FAR = 2**32
"""More than any token id."""


class SignalFormat(Protocol):
    """What a cached teacher needs to know of a form.

    Attributes:
        key: what tells one form's entries from another's, as plain JSON data.
    """

    key: list

    def tolerance(self, dtype: torch.dtype) -> float:
        """Return how far a stored probability may lie from that of a live teacher with weights of this type."""
        ...

    def noise(self, keys: Sequence[str], counts: Sequence[int]) -> Tensor:
        """Return the randomness of sequences with these keys and numbers of positions, float64 [n, draws]."""
        ...

    def keep(self, logp: Tensor, noise: Tensor) -> Kept:
        """Return what is kept of log-probabilities [n, V], n rows of each tensor, on the CPU."""
        ...

    def pack(self, kept: Kept, counts: Sequence[int]) -> list[bytes]:
        """Return the bytes of sequences of so many positions."""
        ...

    def signal(self, parts: Parts, device: torch.device) -> TeacherSignal:
        """Return what the teacher says at the positions of these sequences."""
        ...

    def shares(self, parts: Parts) -> KeptProbs:
        """Return the probabilities that are kept."""
        ...


class TopK:
    """The k largest probabilities and the mass of all others, in float16: unbiased in no divergence, a bound of each.

    A position takes 4 k + 2 bytes up to 65,536 tokens; with 14 of 151,936 tokens it takes 62.

    Args:
        k: tokens kept per position.
        vocab_size: rows of the shared vocabulary.
    """

    def __init__(self, k: int, vocab_size: int):
        self.k, self.vocab_size = min(k, vocab_size), vocab_size
        self.key = [self.k]
        self._planes = _Planes(vocab_size)

    def tolerance(self, dtype: torch.dtype) -> float:
        """Return a few steps of float16, or of bfloat16: a logit above 16 has steps of 1/8 there, and another machine
        or another attention may take the next one."""
        return 0.002 if dtype == torch.float32 else 0.1

    def noise(self, keys: Sequence[str], counts: Sequence[int]) -> Tensor:
        """Return nothing: no draw is made."""
        return torch.zeros(sum(counts), 0)

    def keep(self, logp: Tensor, noise: Tensor) -> Kept:
        """Return ids [n, K] and log-probabilities with the tail's behind them [n, K + 1]."""
        top, ids = logp.topk(self.k, dim=-1)
        # What float16 leaves of 1 is noise where the tail is small: it is summed here and kept.
        tail = logp.scatter(1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
        return ids.int().cpu(), torch.cat([top, tail], dim=-1).clamp(min=_HALF_FLOOR).half().cpu()

    def pack(self, kept: Kept, counts: Sequence[int]) -> list[bytes]:
        """Return position after position: low planes, high planes, log-probabilities."""
        ids, logp = (tensor.numpy() for tensor in kept)
        rows = np.concatenate([*self._planes.pack(ids), logp.astype("<f2").view(np.uint8)], axis=1)
        return [part.tobytes() for part in np.split(rows, np.cumsum(counts)[:-1])]

    def signal(self, parts: Parts, device: torch.device) -> TeacherSignal:
        """Return the folded signal."""
        ids, logp = (_moved(part, device) for part in self._unpack(parts))
        logp = logp.float()
        logp = logp.masked_fill(logp <= _HALF_FLOOR, LOG_FLOOR)
        return TeacherSignal.from_top_k(ids, logp[:, :-1], logp[:, -1:])

    def shares(self, parts: Parts) -> KeptProbs:
        """Return the k likeliest; another token is no likelier than the last of them."""
        ids, logp = self._unpack(parts)
        p = logp.float().exp()
        return KeptProbs(ids, p[:, :-1], p[:, -1], p[:, -2])

    def _unpack(self, parts: Parts) -> tuple[Tensor, Tensor]:
        low, high = 2 * self.k, 2 * self.k + self._planes.high_bytes(self.k)
        rows = np.concatenate(parts).reshape(-1, high + 2 * (self.k + 1))
        logp = np.ascontiguousarray(rows[:, high:]).view("<f2")
        return torch.from_numpy(self._planes.unpack(rows[:, :low], rows[:, low:high])), torch.from_numpy(logp)


class Samples:
    """Ids drawn with replacement, and how often each: fewer bytes, and right on average for the forward KL.

    What is drawn at a position depends on the sequence and the distribution alone, so that asking again gives the same.
    A distinct id takes 3 bytes up to 65,536 tokens, 3.25 up to 262,144, else 4. Where one position ends and the next
    begins follows from the counts.

    Args:
        n: draws per position, at most 255.
        vocab_size: rows of the shared vocabulary.

    Source:
        Anshumann et al. (2025), Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs.
    """

    def __init__(self, n: int, vocab_size: int):
        self.n, self.vocab_size = n, vocab_size
        self.key = ["samples", n]
        self._planes = _Planes(vocab_size)

    def tolerance(self, dtype: torch.dtype) -> float:
        """Return a draw that rounding may move to the next token; in bfloat16 what a step of a logit moves too."""
        return 1.5 / self.n if dtype == torch.float32 else 0.1 + 2.5 / self.n

    def noise(self, keys: Sequence[str], counts: Sequence[int]) -> Tensor:
        """Return uniform numbers that depend on the sequences alone."""
        made = [torch.Generator().manual_seed(int(key[:15], 16)) for key in keys]
        parts = [torch.rand(m, self.n, generator=g, dtype=torch.float64) for g, m in zip(made, counts, strict=True)]
        return torch.cat(parts)

    def keep(self, logp: Tensor, noise: Tensor) -> Kept:
        """Return the ids that are drawn, in order [n, draws]."""
        mass = logp.double().exp().cumsum(dim=-1)
        drawn = torch.searchsorted(mass, noise.to(mass.device) * mass[:, -1:], right=True)
        return (drawn.clamp(max=self.vocab_size - 1).sort(dim=-1).values.int().cpu(),)

    def pack(self, kept: Kept, counts: Sequence[int]) -> list[bytes]:
        """Return the distinct ids of all positions of a sequence: low planes, counts, high planes."""
        drawn = kept[0].numpy()
        first = np.ones(drawn.shape, dtype=bool)
        first[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
        often = np.diff(np.flatnonzero(first), append=drawn.size).astype(np.uint8)
        ends = np.cumsum([0, *first.sum(axis=1)])[np.cumsum(counts)[:-1]]
        parts = zip(np.split(drawn[first], ends), np.split(often, ends), strict=True)
        return [self._packed(ids, times) for ids, times in parts]

    def signal(self, parts: Parts, device: torch.device) -> TeacherSignal:
        """Return the sampled signal."""
        return TeacherSignal.from_samples(*(_moved(part, device) for part in self._unpack(parts)))

    def shares(self, parts: Parts) -> KeptProbs:
        """Return counts divided by the number of draws; nothing is left."""
        ids, counts = self._unpack(parts)
        nothing = torch.zeros(len(ids))
        return KeptProbs(ids.masked_fill(counts == 0, -1), counts / self.n, nothing, nothing)

    def _packed(self, ids: np.ndarray, counts: np.ndarray) -> bytes:
        low, high = self._planes.pack(ids)
        return low.tobytes() + counts.tobytes() + high.tobytes()

    def _unpack(self, parts: Parts) -> tuple[Tensor, Tensor]:
        """Return distinct ids and their counts, both int32 [n, S]; a count of 0 marks an unused place."""
        sizes = [8 * len(part) // (24 + self._planes.bits) for part in parts]
        pairs = list(zip(parts, sizes, strict=True))
        low = np.concatenate([part[: 2 * size] for part, size in pairs])
        counts = np.concatenate([part[2 * size : 3 * size] for part, size in pairs])
        high = np.concatenate([part[3 * size :] for part, size in pairs])
        ids = self._planes.unpack(low, high, sizes)
        row = (np.cumsum(counts, dtype=np.int64) - 1) // self.n  # the counts of a position sum to n
        distinct = np.bincount(row)
        column = np.arange(len(row)) - (np.cumsum(distinct) - distinct)[row]
        wide = np.zeros((2, len(distinct), distinct.max(initial=0)), dtype=np.int32)
        wide[0, row, column], wide[1, row, column] = ids, counts
        return torch.from_numpy(wide[0]), torch.from_numpy(wide[1])


class _Planes:
    """Token ids as bytes.

    Attributes:
        bits: per id above the low 16.
    """

    def __init__(self, vocab_size: int):
        self.bits = 0 if vocab_size <= 2**16 else 2 if vocab_size <= 2**18 else 8

    def high_bytes(self, count: int) -> int:
        """Return the bytes of the high plane of so many ids."""
        return -(-count * self.bits // 8)

    def pack(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the low plane [..., 2 m] and the high plane [..., b] of ids [..., m], both uint8."""
        low = np.ascontiguousarray(ids.astype("<u2")).view(np.uint8)
        high = (ids >> 16).astype(np.uint8)
        if self.bits == 2:
            whole = np.zeros((*ids.shape[:-1], 4 * self.high_bytes(ids.shape[-1])), dtype=np.uint8)
            whole[..., : ids.shape[-1]] = high
            fours = whole.reshape(*ids.shape[:-1], self.high_bytes(ids.shape[-1]), 4)
            high = np.bitwise_or.reduce(fours << _SHIFTS, axis=-1)
        return low, high[..., : self.high_bytes(ids.shape[-1])]

    def unpack(self, low: np.ndarray, high: np.ndarray, sizes: Sequence[int] | None = None) -> np.ndarray:
        """Return ids, int32 [..., m]; `sizes` are those of the runs that were packed one by one and joined."""
        ids = np.ascontiguousarray(low).view("<u2").astype(np.int32)
        if self.bits == 2:
            high = ((high[..., None] >> _SHIFTS) & 3).reshape(*high.shape[:-1], 4 * high.shape[-1])
            high = high[..., : ids.shape[-1]] if sizes is None else high[_used(np.array(sizes), 4)]
        return ids | high.astype(np.int32) << 16 if self.bits else ids


_SHIFTS = np.array([0, 2, 4, 6], dtype=np.uint8)


def _used(sizes: np.ndarray, unit: int) -> np.ndarray:
    """Return which places hold something where runs of these sizes are each filled up to multiples of `unit`.

    >>> _used(np.array([1, 2]), 2).tolist()
    [True, False, True, True]
    """
    filled = -(-sizes // unit) * unit
    starts = np.cumsum(filled) - filled
    return np.arange(filled.sum()) - np.repeat(starts, filled) < np.repeat(sizes, filled)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor from the CPU, without waiting for it where that can be."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
