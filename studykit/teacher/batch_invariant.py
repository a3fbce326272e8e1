"""A batch-invariant live teacher: its values for a sequence do not depend on which other sequences share its batch.

The rounding of a sum of floats depends on the shape of the matrix product it is part of, and so on the shape of the
batch. Here every product has a shape that follows from the sequence's length alone: the width of a batch is the length
rounded up, the width fixes the number of rows, a batch with fewer sequences is filled up with repeated rows, and the
output head takes a fixed number of positions at a time. A sequence then gets the same bits in every batch, on one
machine with one number of threads that is a power of two (three threads divide a product unevenly, and rows at the
boundary differ in the last bit). Mixtures of experts are an exception: the batch of an expert depends on the other
sequences.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from studykit.chat import Encoded
from studykit.collate import Batch
from studykit.losses import LOG_FLOOR
from studykit.models.projection import project
from studykit.models.states import hidden_states
from studykit.teacher.live import LiveTeacher

POSITIONS = 256
"""Positions that the output head takes at a time: their full distributions over 150,000 tokens are 150 MiB."""

_TOKENS, _TOKENS_ON_ACCELERATOR = 2**11, 2**14
"""Tokens of a batch, at most."""


class BatchInvariantTeacher:
    """Runs a live teacher in batches whose shapes depend on a sequence's length alone.

    Args:
        live: the live teacher; on an accelerator its batches have more tokens.
    """

    def __init__(self, live: LiveTeacher):
        self.live = live
        self.device = live.head.weight.device
        self._tokens = _TOKENS if self.device.type == "cpu" else _TOKENS_ON_ACCELERATOR
        config = getattr(live.model, "config", None)
        self._max_width = getattr(config, "max_position_embeddings", None) or np.iinfo(np.int64).max

    def plan(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Return batches of sequences of one width, as indices into `lengths` (int64 [n])."""
        widths = self.round_up(lengths)
        batches = []
        for width in np.unique(widths).tolist():
            indices = np.flatnonzero(widths == width)
            batches += np.split(indices, range(self.count_rows(width), len(indices), self.count_rows(width)))
        return batches

    def round_up(self, lengths: np.ndarray) -> np.ndarray:
        """Return the batch widths of lengths: eight steps per power of two, at least multiples of 4, int64 [n]."""
        steps = np.maximum(4, np.exp2(np.ceil(np.log2(lengths)) - 4).astype(np.int64))
        # A model with learned positions has none past its longest sequence.
        return np.maximum(lengths, np.minimum(-(-lengths // steps) * steps, self._max_width))

    def count_rows(self, width: int) -> int:
        """Return the rows of every batch of a width: a power of two, which threads divide evenly."""
        return 2 ** (max(1, self._tokens // width).bit_length() - 1)

    @torch.no_grad()
    def compute_logp(self, encoded: Encoded, rows: np.ndarray) -> Iterator[Tensor]:
        """Yield the log-probabilities at the supervised positions of one planned batch, row after row.

        Yields:
            float32 [POSITIONS, V], at least once; the last one is filled up past the last position.
        """
        batch = self._fill_batch(encoded, rows).to(self.device)
        states = batch.predicting(
            hidden_states(self.live.model, batch.input_ids, batch.attention_mask, self.live.packed)
        )
        states = torch.nn.functional.pad(states, (0, 0, 0, -len(states) % POSITIONS if len(states) else POSITIONS))
        head, shared = self.live.head, slice(self.live.vocab_size)
        bias = None if head.bias is None else head.bias[shared]
        for part in states.split(POSITIONS):
            logits = project(part, head.weight[shared], bias, head.logit_scale, head.softcap)
            yield logits.log_softmax(dim=-1).clamp(min=LOG_FLOOR)

    def _fill_batch(self, encoded: Encoded, rows: np.ndarray) -> Batch:
        """Return a planned batch in its full shape.

        Beside the tokens that the sequences' own loss masks exclude, its loss mask excludes padding and repeated rows.
        """
        width = int(self.round_up(encoded.lengths[rows]).max())
        count = self.count_rows(width)
        ids = np.full((count, width), self.live.tokenizer.pad_token_id, dtype=np.int64)
        loss_mask = np.zeros((count, width), dtype=bool)
        for i, row in enumerate(np.resize(rows, count)):
            sequence = encoded.ids_of(row)
            ids[i, : len(sequence)] = sequence
            if i < len(rows):
                loss_mask[i, : len(sequence)] = encoded.supervised_of(row)
        # A causal model does not look to the right, so padding needs no attention mask; whether there is one would
        # decide between two attention kernels.
        attention_mask = torch.ones(ids.shape, dtype=torch.int64)
        return Batch(torch.from_numpy(ids), attention_mask, torch.from_numpy(loss_mask))
