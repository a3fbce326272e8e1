"""Token sequences as batches, and which examples meet in which: fixed before training, so that every resume agrees.

plan = plan_batches(lengths, batch_size=64, count=300, generator=np.random.default_rng(seed))
loader dataset: PlannedBatches(encoded, plan, pad_token_id)          # one item is one ready micro-batch
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from studykit.chat import Encoded
from studykit.errors import InputError

_POOLED = 8


@dataclass
class Batch:
    """Sequences to train on.

    Attributes:
        input_ids: int64 [B, T], padded on the right.
        attention_mask: int64 [B, T].
        loss_mask: bool [B, T]; the first token of a row has nothing to predict it and is never counted.
        keys: content hash of each row, by which a cache knows it; empty for rows made during training.
        author: int64 [B], `DATA`, `TEACHER` or `STUDENT` of `studykit.losses`; None where all rows are the data's own.
    """

    input_ids: Tensor
    attention_mask: Tensor
    loss_mask: Tensor
    keys: list[str] = field(default_factory=list)
    author: Tensor | None = None

    @property
    def target(self) -> Tensor:
        """The supervised token ids in row-major order, int64 [N]."""
        return self.input_ids[:, 1:][self.loss_mask[:, 1:]]

    @property
    def sequence(self) -> Tensor:
        """The row that each supervised token belongs to, int64 [N]."""
        mask = self.loss_mask[:, 1:]
        return torch.arange(len(mask), device=mask.device)[:, None].expand_as(mask)[mask]

    def predicting(self, hidden: Tensor) -> Tensor:
        """Return the hidden states that predict the supervised tokens: position i predicts token i + 1, [N, H]."""
        return hidden[:, :-1][self.loss_mask[:, 1:]]

    def prompts(self) -> list[list[int]]:
        """Return what comes before the last answer of each row: up to the last run of supervised tokens.

        Raises:
            InputError: a row that is all answer, such as a raw text.
        """
        return [prompt for prompt, _ in self.split_rows()]

    def split_rows(self) -> list[tuple[list[int], list[int]]]:
        """Return prompt and last answer of each row; what a chat template puts behind the answer is left out.

        Raises:
            InputError: a row that is all answer, such as a raw text.
        """
        rows = []
        for ids, mask in zip(self.input_ids.tolist(), self.loss_mask.tolist(), strict=True):
            end = len(mask) - mask[::-1].index(True)
            start = end - ([*mask[end - 1 :: -1], False]).index(False)
            if start == 0:
                raise InputError("a method that generates answers needs prompts, and the data holds raw texts")
            rows.append((ids[:start], ids[start:end]))
        return rows


def plan_batches(lengths: np.ndarray, batch_size: int, count: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Return `count` micro-batches of example positions, each of exactly `batch_size`.

    The examples are dealt from one permutation after the other, so that all are seen equally often. Within each
    group of a few batches they are sorted by length, which saves padding, and the group's batches are shuffled.

    Args:
        lengths: int [n], tokens per example.
        batch_size: sequences per micro-batch.
        count: micro-batches in all.
        generator: the only source of randomness.

    Returns:
        `count` arrays of int64 [batch_size].
    """
    needed = count * batch_size
    epochs = -(-needed // len(lengths))
    stream = np.concatenate([generator.permutation(len(lengths)) for _ in range(epochs)])[:needed]
    plan: list[np.ndarray] = []
    for start in range(0, needed, batch_size * _POOLED):
        group = stream[start : start + batch_size * _POOLED]
        group = group[np.argsort(lengths[group], kind="stable")].reshape(-1, batch_size)
        plan.extend(generator.permutation(group))
    return plan


def collate(encoded: Encoded, indices: Sequence[int] | np.ndarray, pad_token_id: int) -> Batch:
    """Pad the sequences on the right to the longest of them and return the batch."""
    rows = [encoded.ids_of(i) for i in indices]
    width = max(len(row) for row in rows)
    input_ids = np.full((len(rows), width), pad_token_id, dtype=np.int64)
    attention_mask = np.zeros((len(rows), width), dtype=np.int64)
    loss_mask = np.zeros((len(rows), width), dtype=bool)
    for place, (index, row) in enumerate(zip(indices, rows, strict=True)):
        input_ids[place, : len(row)] = row
        attention_mask[place, : len(row)] = 1
        loss_mask[place, : len(row)] = encoded.supervised_of(index)
    return Batch(
        *(torch.from_numpy(array) for array in (input_ids, attention_mask, loss_mask)),
        keys=[encoded.key_of(i) for i in indices],
    )


class PlannedBatches(Dataset):
    """A data set whose items are whole micro-batches, as mappings that `transformers.Trainer` can move to a device."""

    def __init__(self, encoded: Encoded, plan: list[np.ndarray], pad_token_id: int):
        self.encoded, self.plan, self.pad_token_id = encoded, plan, pad_token_id

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> dict:
        batch = collate(self.encoded, self.plan[index], self.pad_token_id)
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "loss_mask": batch.loss_mask,
            "keys": batch.keys,
        }


def each_example_once(encoded: Encoded, batch_size: int, pad_token_id: int) -> list[Batch]:
    """Return every example in batches of similar length: the order in which a teacher is asked ahead of training."""
    order = np.argsort(encoded.lengths, kind="stable")
    return [
        collate(encoded, order[start : start + batch_size], pad_token_id) for start in range(0, len(order), batch_size)
    ]
