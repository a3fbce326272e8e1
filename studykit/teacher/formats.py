"""What the cache stores of a teacher's distribution: its k likeliest tokens and a tail, or counts of sampled tokens.

format = TopK(14, vocab_size=151_936)
columns = format.encode(logp, format.draw_noise(keys, counts))      # log-probabilities [n, V] -> tensors of n rows
parts = format.to_bytes(columns, counts)                            # one byte string per sequence
signal = format.decode_signal(parts, device)                        # byte strings -> TeacherSignal
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from studykit.losses import LOG_FLOOR
from studykit.teacher.signal import TeacherSignal, log_complement
from studykit.teacher.token_planes import TokenPlanes

_HALF_FLOOR = -6e4
"""Stands for log 0 in float16."""

_ROW_STRIDE = 2**32
"""Above any token id: row * stride + id tells the tokens of all rows apart."""

Columns = tuple[Tensor, ...]
"""Encoded distributions: tensors of one row per position, on the CPU."""

Parts = Sequence[np.ndarray]
"""The byte strings of sequences, uint8 [bytes] each."""


@dataclass(frozen=True)
class KeptProbs:
    """The stored probabilities of a distribution, per position.

    Attributes:
        tokens: ids of the tokens stored by themselves [n, K]; -1 where an entry is unused.
        p: their probabilities [n, K].
        tail: probability of all other tokens together [n].
        max_unkept: upper bound of the probability of any single other token [n].
    """

    tokens: Tensor
    p: Tensor
    tail: Tensor
    max_unkept: Tensor

    def distance(self, other: "KeptProbs") -> float:
        """Return the largest difference of a probability.

        A token that only one side has stored may have any probability up to `max_unkept` on the other; the least
        possible difference counts.
        """
        if len(self.tokens) != len(other.tokens):
            return 1.0
        sides = (self.tail - other.tail).abs(), self._differences(other), other._differences(self)
        return max((float(side.max()) for side in sides if side.numel()), default=0.0)

    def _differences(self, other: "KeptProbs") -> Tensor:
        """Return the difference to the other side of every probability stored on this side."""
        (mine, p), (theirs, q) = self._flatten(), other._flatten()
        order = theirs.argsort()
        at = torch.searchsorted(theirs[order], mine).clamp(max=len(theirs) - 1)
        nearest = torch.minimum(p, other.max_unkept[mine // _ROW_STRIDE])
        return (p - torch.where(theirs[order][at] == mine, q[order][at], nearest)).abs()

    def _flatten(self) -> tuple[Tensor, Tensor]:
        """Return one number per stored token that tells row and token, and its probability."""
        used = self.tokens >= 0
        rows = torch.arange(len(self.tokens))[:, None].expand_as(self.tokens)
        return (rows * _ROW_STRIDE + self.tokens)[used], self.p[used]


class SignalFormat(Protocol):
    """How distributions are stored.

    Attributes:
        key: tells one format's entries from another's in the cache key, as plain JSON data.
        vocab_size: rows of the shared vocabulary.
    """

    key: list
    vocab_size: int

    def tolerance(self, dtype: torch.dtype) -> float:
        """Return the largest admissible difference of a stored probability to that of a live teacher of this dtype."""
        ...

    def draw_noise(self, keys: Sequence[str], counts: Sequence[int]) -> Tensor:
        """Return the random numbers for sequences with these keys and numbers of positions, float64 [n, draws]."""
        ...

    def encode(self, logp: Tensor, noise: Tensor) -> Columns:
        """Return the part of log-probabilities [n, V] that is stored, n rows in each tensor."""
        ...

    def to_bytes(self, columns: Columns, counts: Sequence[int]) -> list[bytes]:
        """Return one byte string per sequence; `counts` are the positions of each."""
        ...

    def decode_signal(self, parts: Parts, device: torch.device) -> TeacherSignal:
        """Return the teacher's signal at the positions of these sequences, on a device."""
        ...

    def decode_probs(self, parts: Parts) -> KeptProbs:
        """Return the stored probabilities of these sequences."""
        ...


class TopK:
    """The k largest probabilities and the sum of all others (the tail), in float16.

    The divergence over these k + 1 categories is a lower bound of the full one, and no unbiased estimate of it. A
    position takes 4 k + 2 bytes up to a vocabulary of 65,536 tokens; with 14 of 151,936 tokens it takes 62.

    Args:
        k: tokens stored per position.
        vocab_size: rows of the shared vocabulary.
    """

    def __init__(self, k: int, vocab_size: int):
        self.k, self.vocab_size = min(k, vocab_size), vocab_size
        self.key = [self.k]
        self._planes = TokenPlanes(vocab_size)
        self.position_bytes = 2 * self.k + self._planes.high_bytes(self.k) + 2 * (self.k + 1)

    def tolerance(self, dtype: torch.dtype) -> float:
        """Return a few steps of float16, or of bfloat16: a logit above 16 has steps of 1/8 there, and another machine
        or another attention kernel may round to the next one."""
        return 0.002 if dtype == torch.float32 else 0.1

    def draw_noise(self, keys: Sequence[str], counts: Sequence[int]) -> Tensor:
        """Return no numbers, [n, 0]: nothing is sampled."""
        return torch.zeros(sum(counts), 0)

    def encode(self, logp: Tensor, noise: Tensor) -> Columns:
        """Return ids [n, K], and log-probabilities with the tail's as the last column [n, K + 1]."""
        top, ids = logp.topk(self.k, dim=-1)
        # In float16, 1 minus the sum of the k is noise where the tail is small: so the tail is summed here and stored.
        tail = logp.scatter(1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
        return ids.int().cpu(), torch.cat([top, tail], dim=-1).clamp(min=_HALF_FLOOR).half().cpu()

    def encode_known(self, ids: Tensor, logp: Tensor) -> Columns:
        """Return the same of k tokens that are known already; the tail is what they leave of 1.

        Args:
            ids: the k likeliest, the likeliest first [n, K]; one outside the shared vocabulary leaves its probability
                to the tail, and an equal share of the tail replaces it.
            logp: their log-probabilities [n, K].
        """
        outside, logp = ids >= self.vocab_size, logp.double()
        tail = log_complement(logp.masked_fill(outside, -torch.inf))
        if self.k == self.vocab_size:
            tail = torch.full_like(tail, -torch.inf)
        elif outside.any():
            unlisted = self.vocab_size - self.k + outside.sum(dim=-1, keepdim=True)
            ids, logp = _with_others(ids, outside), torch.where(outside, tail - unlisted.double().log(), logp)
            tail = log_complement(logp)
        return ids.int(), torch.cat([logp, tail], dim=-1).clamp(min=_HALF_FLOOR).half()

    def to_bytes(self, columns: Columns, counts: Sequence[int]) -> list[bytes]:
        """Return position after position: low plane, high plane, log-probabilities."""
        ids, logp = (tensor.numpy() for tensor in columns)
        rows = np.concatenate([*self._planes.split(ids), logp.astype("<f2").view(np.uint8)], axis=1)
        return [part.tobytes() for part in np.split(rows, np.cumsum(counts)[:-1])]

    def decode_signal(self, parts: Parts, device: torch.device) -> TeacherSignal:
        """Return a signal over k + 1 categories."""
        ids, logp = (_move(part, device) for part in self._from_bytes(parts))
        logp = logp.float()
        logp = logp.masked_fill(logp <= _HALF_FLOOR, LOG_FLOOR)
        return TeacherSignal.from_top_k(ids, logp[:, :-1], logp[:, -1:])

    def decode_probs(self, parts: Parts) -> KeptProbs:
        """Return the k likeliest; no other token is likelier than the last of them."""
        ids, logp = self._from_bytes(parts)
        p = logp.float().exp()
        return KeptProbs(ids, p[:, :-1], tail=p[:, -1], max_unkept=p[:, -2])

    def _from_bytes(self, parts: Parts) -> Columns:
        """Invert `to_bytes`."""
        low, high = 2 * self.k, 2 * self.k + self._planes.high_bytes(self.k)
        rows = np.concatenate(parts).reshape(-1, high + 2 * (self.k + 1))
        logp = np.ascontiguousarray(rows[:, high:]).view("<f2")
        return torch.from_numpy(self._planes.join(rows[:, :low], rows[:, low:high])), torch.from_numpy(logp)


class Samples:
    """Tokens sampled with replacement and their counts: fewer bytes, an unbiased gradient of the forward KL.

    The draws at a position depend on the sequence and the distribution alone, so a second capture stores the same. A
    distinct token takes 3 bytes up to a vocabulary of 65,536, 3.25 up to 262,144, else 4. Positions need no separator:
    the counts of each sum to n.

    Args:
        n: draws per position, at most 255.
        vocab_size: rows of the shared vocabulary.

    Source:
        Anshumann et al. (2025), Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs.
    """

    def __init__(self, n: int, vocab_size: int):
        self.n, self.vocab_size = n, vocab_size
        self.key = ["samples", n]
        self._planes = TokenPlanes(vocab_size)

    def tolerance(self, dtype: torch.dtype) -> float:
        """Return the weight of one draw, which rounding may move to the next token; in bfloat16 also the change of a
        probability by one rounding step of a logit."""
        return 1.5 / self.n if dtype == torch.float32 else 0.1 + 2.5 / self.n

    def draw_noise(self, keys: Sequence[str], counts: Sequence[int]) -> Tensor:
        """Return uniform random numbers, seeded by the sequences' keys."""
        seeded = [torch.Generator().manual_seed(int(key[:15], 16)) for key in keys]
        parts = [torch.rand(m, self.n, generator=g, dtype=torch.float64) for g, m in zip(seeded, counts, strict=True)]
        return torch.cat(parts)

    def encode(self, logp: Tensor, noise: Tensor) -> Columns:
        """Return the drawn ids, sorted within each position [n, draws]."""
        mass = logp.double().exp().cumsum(dim=-1)
        drawn = torch.searchsorted(mass, noise.to(mass.device) * mass[:, -1:], right=True)
        return (drawn.clamp(max=self.vocab_size - 1).sort(dim=-1).values.int().cpu(),)

    def to_bytes(self, columns: Columns, counts: Sequence[int]) -> list[bytes]:
        """Return the distinct ids of all positions of a sequence: low plane, counts, high plane."""
        drawn = columns[0].numpy()
        first = np.ones(drawn.shape, dtype=bool)
        first[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
        repeats = np.diff(np.flatnonzero(first), append=drawn.size).astype(np.uint8)
        ends = np.cumsum([0, *first.sum(axis=1)])[np.cumsum(counts)[:-1]]
        sequences = zip(np.split(drawn[first], ends), np.split(repeats, ends), strict=True)
        return [self._join_bytes(ids, times) for ids, times in sequences]

    def decode_signal(self, parts: Parts, device: torch.device) -> TeacherSignal:
        """Return a signal over the sampled tokens."""
        return TeacherSignal.from_samples(*(_move(part, device) for part in self._from_bytes(parts)))

    def decode_probs(self, parts: Parts) -> KeptProbs:
        """Return counts divided by the number of draws; the tail is empty."""
        ids, counts = self._from_bytes(parts)
        zeros = torch.zeros(len(ids))
        return KeptProbs(ids.masked_fill(counts == 0, -1), counts / self.n, tail=zeros, max_unkept=zeros)

    def _join_bytes(self, ids: np.ndarray, repeats: np.ndarray) -> bytes:
        low, high = self._planes.split(ids)
        return low.tobytes() + repeats.tobytes() + high.tobytes()

    def _from_bytes(self, parts: Parts) -> Columns:
        """Return distinct ids and their counts, both int32 [n, S]; a count of 0 marks an unused entry."""
        sizes = [8 * len(part) // (24 + self._planes.high_bits) for part in parts]
        pairs = list(zip(parts, sizes, strict=True))
        low = np.concatenate([part[: 2 * size] for part, size in pairs])
        counts = np.concatenate([part[2 * size : 3 * size] for part, size in pairs])
        high = np.concatenate([part[3 * size :] for part, size in pairs])
        ids = self._planes.join(low, high, sizes)
        row = (np.cumsum(counts, dtype=np.int64) - 1) // self.n  # the counts of a position sum to n
        distinct = np.bincount(row)
        column = np.arange(len(row)) - (np.cumsum(distinct) - distinct)[row]
        table = np.zeros((2, len(distinct), distinct.max(initial=0)), dtype=np.int32)
        table[0, row, column], table[1, row, column] = ids, counts
        return torch.from_numpy(table[0]), torch.from_numpy(table[1])


def _with_others(ids: Tensor, outside: Tensor) -> Tensor:
    """Return ids [n, K] in which those `outside` are replaced by the smallest ids that their row does not have.

    >>> _with_others(torch.tensor([[7, 0, 9]]), torch.tensor([[False, False, True]])).tolist()
    [[7, 0, 1]]
    """
    ids = ids.clone()
    for row in outside.any(-1).nonzero()[:, 0].tolist():
        known = set(ids[row][~outside[row]].tolist())
        others = (other for other in itertools.count() if other not in known)
        ids[row, outside[row]] = torch.tensor([next(others) for _ in range(int(outside[row].sum()))], dtype=ids.dtype)
    return ids


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor from the CPU, on CUDA without waiting for the copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
