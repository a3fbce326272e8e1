"""A live teacher asked so that its answer on a sequence does not depend on the other sequences asked with it.

Sums of floating-point numbers come out by the shape of the product they are part of, and the shape of a batch by who
else is in it. Here every product has a shape that the sequence's own length decides: its width is rounded up, the
number of rows is fixed by the width, a batch that is not full is filled up with repeated rows, and the output head
takes a fixed number of positions at a time. The answers are then the same bits in any company, on one machine with
one number of threads that is a power of two (three threads cut a product unevenly, and rows at the cut differ in the
last bit). Mixtures of experts are another exception: their experts' batches depend on the company.
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


class BatchInvariantTeacher:
    """Asks a live teacher in shapes that depend on a sequence's own length alone.

    Args:
        online: the live teacher; the tokens of a batch depend on whether it lies on an accelerator.
    """

    def __init__(self, online: LiveTeacher):
        self.online = online
        self.device = online.head.weight.device
        self._tokens = _TOKENS if self.device.type == "cpu" else _TOKENS_ON_ACCELERATOR
        config = getattr(online.model, "config", None)
        self._longest = getattr(config, "max_position_embeddings", None) or np.iinfo(np.int64).max

    def plan(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Return batches of sequences of one width, as positions among the lengths (int64 [n])."""
        widths = self.widths(lengths)
        batches = []
        for width in np.unique(widths).tolist():
            places = np.flatnonzero(widths == width)
            batches += np.split(places, range(self.rows(width), len(places), self.rows(width)))
        return batches

    def widths(self, lengths: np.ndarray) -> np.ndarray:
        """Round lengths up to eight steps per power of two, at least to multiples of 4, int64 [n]."""
        steps = np.maximum(4, np.exp2(np.ceil(np.log2(lengths)) - 4).astype(np.int64))
        # Learned positions end at the model's longest sequence.
        return np.maximum(lengths, np.minimum(-(-lengths // steps) * steps, self._longest))

    def rows(self, width: int) -> int:
        """Return the rows of every batch of a width: a power of two, which threads share without a rest."""
        return 2 ** (max(1, self._tokens // width).bit_length() - 1)

    @torch.no_grad()
    def logp(self, encoded: Encoded, rows: np.ndarray) -> Iterator[Tensor]:
        """Yield the log-probabilities at the supervised positions of one planned batch, row after row.

        Yields:
            float32 [POSITIONS, V], at least once; what is past the last position is filling.
        """
        head = self.online.head
        width = int(self.widths(encoded.lengths[rows]).max())
        count = self.rows(width)
        ids = np.full((count, width), self.online.tokenizer.pad_token_id, dtype=np.int64)
        loss_mask = np.zeros((count, width), dtype=bool)
        for place, row in enumerate(np.resize(rows, count)):
            sequence = encoded.ids_of(row)
            ids[place, : len(sequence)] = sequence
            if place < len(rows):
                loss_mask[place, : len(sequence)] = encoded.supervised_of(row)
        # A causal model does not look to the right, so the padding needs no mask; whether a batch has one would
        # decide between two ways of computing attention.
        batch = Batch(torch.from_numpy(ids), torch.ones(ids.shape, dtype=torch.int64), torch.from_numpy(loss_mask))
        batch = batch.to(self.device)
        states = batch.predicting(hidden_states(self.online.model, batch.input_ids, batch.attention_mask))
        states = torch.nn.functional.pad(states, (0, 0, 0, -len(states) % POSITIONS if len(states) else POSITIONS))
        rows_used = slice(self.online.vocab_size)
        bias = None if head.bias is None else head.bias[rows_used]
        for part in states.split(POSITIONS):
            logits = project(part, head.weight[rows_used], bias, head.logit_scale, head.softcap)
            yield logits.log_softmax(dim=-1).clamp(min=LOG_FLOOR)
