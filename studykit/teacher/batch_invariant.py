"""A batch-invariant live teacher: its values for a sequence do not depend on which other sequences share its batch.

The rounding of a sum of floats depends on the shape of the matrix product it is part of, and so on the shape of the
batch. A sequence gets the same values in every capture, on one machine with one number of threads, in one of these:

- **On a CPU each sequence is a batch by itself**, without padding.
- **A small model on a CPU** would spend most of that time outside of products. It computes in float64, whose rounding
  is lost when the values are stored in half precision, and so in batches of sequences of similar length. Where it has
  operations that know no float64, as those of experts, it takes each sequence by itself too.
- **An accelerator** would idle on one sequence. There the width of a batch is the length rounded up, the width fixes
  the number of rows, a batch with fewer sequences is filled up with repeated rows, and the output head takes a fixed
  number of positions at a time. Mixtures of experts are an exception: the batch of an expert depends on the other
  sequences.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from studykit.chat import Encoded
from studykit.collate import Batch, collate
from studykit.losses import LOG_FLOOR
from studykit.models.projection import project
from studykit.models.states import hidden_states
from studykit.teacher.live import LiveTeacher

POSITIONS = 256
"""Positions that the output head takes at a time: their full distributions over 150,000 tokens are 150 MiB."""

_SMALL = 4_000_000
"""Parameters: with fewer, a sequence by itself takes several times as long as in a batch."""

_TOKENS, _TOKENS_ON_ACCELERATOR = 2**11, 2**14
"""Tokens of a batch of several sequences, at most."""

_PADDED = 1.1
"""Tokens of a batch with its padding, at most, as a multiple of those without."""


class BatchInvariantTeacher:
    """Runs a live teacher in batches that do not show in the values.

    Args:
        live: the live teacher.
    """

    def __init__(self, live: LiveTeacher):
        self.device = live.head.weight.device
        self._has_fixed_shapes = self.device.type != "cpu"
        self._tokens = _TOKENS_ON_ACCELERATOR
        if not self._has_fixed_shapes:
            doubled = _in_float64(live)
            self._tokens = 1 if doubled is None else _TOKENS
            live = doubled or live
        self.live = live
        config = getattr(live.model, "config", None)
        self._max_width = getattr(config, "max_position_embeddings", None) or np.iinfo(np.int64).max

    def plan(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Return batches of sequences of about one length, as indices into `lengths` (int64 [n])."""
        if not self._has_fixed_shapes:
            return _group(lengths, self._tokens)
        widths = self.round_up(lengths)
        batches = []
        for width in np.unique(widths).tolist():
            indices = np.flatnonzero(widths == width)
            batches += np.split(indices, range(self.count_rows(width), len(indices), self.count_rows(width)))
        return batches

    def round_up(self, lengths: np.ndarray) -> np.ndarray:
        """Return the fixed widths of lengths: eight steps per power of two, at least multiples of 4, int64 [n]."""
        steps = np.maximum(4, np.exp2(np.ceil(np.log2(lengths)) - 4).astype(np.int64))
        # A model with learned positions has none past its longest sequence.
        return np.maximum(lengths, np.minimum(-(-lengths // steps) * steps, self._max_width))

    def count_rows(self, width: int) -> int:
        """Return the rows of every batch of a fixed width: a power of two, which divides evenly."""
        return 2 ** (max(1, self._tokens // width).bit_length() - 1)

    def count_tokens(self, lengths: np.ndarray) -> int:
        """Return the number of tokens that one planned batch of these lengths computes, its padding included."""
        if not self._has_fixed_shapes:
            return len(lengths) * int(lengths.max())
        width = int(self.round_up(lengths).max())
        return self.count_rows(width) * width

    @torch.no_grad()
    def compute_logp(self, encoded: Encoded, rows: np.ndarray) -> Iterator[Tensor]:
        """Yield the log-probabilities at the supervised positions of one planned batch, row after row.

        Yields:
            float32 [POSITIONS, V], at least once; the last one has fewer positions, or with fixed shapes is filled up
            past the last position.
        """
        batch = self.make_batch(encoded, rows).to(self.device)
        states = batch.predicting(
            hidden_states(self.live.model, batch.input_ids, batch.attention_mask, self.live.packed)
        )
        if self._has_fixed_shapes:
            states = torch.nn.functional.pad(states, (0, 0, 0, -len(states) % POSITIONS if len(states) else POSITIONS))
        head, shared = self.live.head, slice(self.live.vocab_size)
        bias = None if head.bias is None else head.bias[shared]
        for part in states.split(POSITIONS):
            logits = project(part, head.weight[shared], bias, head.logit_scale, head.softcap)
            yield logits.log_softmax(dim=-1).clamp(min=LOG_FLOOR).float()

    def make_batch(self, encoded: Encoded, rows: np.ndarray) -> Batch:
        """Return a planned batch as it is computed.

        Beside the tokens that the sequences' own loss masks exclude, its loss mask excludes padding and repeated rows.
        """
        batch = collate(encoded, rows, self.live.tokenizer.pad_token_id)
        ids, loss_mask = batch.input_ids, batch.loss_mask
        if self._has_fixed_shapes:
            width = int(self.round_up(encoded.lengths[rows]).max())
            repeated = torch.from_numpy(np.resize(np.arange(len(rows)), self.count_rows(width)))
            more = (0, width - ids.shape[1])
            ids = torch.nn.functional.pad(ids, more, value=self.live.tokenizer.pad_token_id)[repeated]
            loss_mask = torch.nn.functional.pad(loss_mask, more)[repeated]
            loss_mask[len(rows) :] = False
        # A causal model does not look to the right, so padding needs no attention mask; whether there is one would
        # decide between two attention kernels.
        return Batch(ids, torch.ones_like(ids), loss_mask)


@torch.no_grad()
def _in_float64(live: LiveTeacher) -> LiveTeacher | None:
    """Return a small teacher in float64; None for one that is large, or cannot run in it."""
    if sum(p.numel() for p in live.model.parameters()) >= _SMALL or hasattr(live.model, "hf_device_map"):
        return None
    doubled = LiveTeacher(copy.deepcopy(live.model).double(), live.tokenizer, live.vocab_size)
    ids = torch.zeros(1, 2, dtype=torch.long)
    try:
        hidden_states(doubled.model, ids, torch.ones_like(ids), doubled.packed)
    except RuntimeError:  # such as "got Double"
        return None
    return doubled


def _group(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Return indices in batches of similar length, with little padding and at most a number of tokens, or one sequence.

    >>> [batch.tolist() for batch in _group(np.array([9, 30, 10, 10]), tokens=64)]
    [[0, 2, 3], [1]]
    """
    batches: list[list[int]] = []
    real = 0
    for index in np.argsort(lengths, kind="stable").tolist():
        length = int(lengths[index])
        padded = (len(batches[-1]) + 1) * length if batches else 0
        if not batches or padded > min(tokens, _PADDED * (real + length)):
            batches.append([])
            real = 0
        batches[-1].append(index)
        real += length
    return [np.array(batch) for batch in batches]
