"""Token sequences as padded batches, and the order of the batches, drawn before training so that a resumed run agrees.

plan = plan_batches(encoded.lengths, batch_size=64, count=300, generator=np.random.default_rng(seed))
batch = collate(encoded, plan[0], tokenizer.pad_token_id)
loss = cross_entropy(head(batch.predicting(hidden)), batch.target)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from studykit.chat import Encoded
from studykit.errors import InputError

_SORTED_TOGETHER = 8
"""Micro-batches whose examples are sorted by length together."""


@dataclass
class Batch:
    """Sequences to train on.

    `loss_mask` marks the supervised tokens: the assistant's and the end-of-turn token after them. Left out are

    - the prompt (system and user turns) and the words that a chat template puts around turns, since the student is
      to learn answers, not questions or formats;
    - padding, which is no token of the sequence;
    - the first token of a sequence, even where the mask includes it: the logit at position i predicts token i + 1, so
      that no logit predicts the first one. `target`, `sequence` and `predicting` never count it.

    In a raw text every other token is supervised.

    Attributes:
        input_ids: int64 [B, T], padded on the right.
        attention_mask: int64 [B, T], 0 at padding.
        loss_mask: bool [B, T].
        keys: content hash of each row, under which a cached teacher stores it; empty for rows made during training.
        author: int64 [B], an `Author` of `studykit.losses` for each row; None where all rows are the data's.
        annotators: who wrote the answers of each row in the data; empty for rows made during training.
        methods: number of the stage's method that trains each row; empty where one method trains all.
        method: number of the method that trains the batch.
    """

    input_ids: Tensor
    attention_mask: Tensor
    loss_mask: Tensor
    keys: list[str] = field(default_factory=list)
    author: Tensor | None = None
    annotators: list[str] = field(default_factory=list)
    methods: list[int] = field(default_factory=list)
    method: int = 0

    def predicting(self, states: Tensor) -> Tensor:
        """Return the hidden states (or logits) [B, T, H] that predict the supervised tokens, in row-major order [N, H].

        >>> ids, mask = torch.tensor([[5, 6, 7, 0]]), torch.tensor([[1, 1, 1, 0]])
        >>> batch = Batch(ids, mask, loss_mask=torch.tensor([[False, False, True, False]]))
        >>> batch.target, batch.predicting(torch.tensor([[[0.0], [1.0], [2.0], [3.0]]]))
        (tensor([7]), tensor([[1.]]))
        """
        return states[:, :-1][self._predicted]

    @property
    def target(self) -> Tensor:
        """The supervised token ids in row-major order, int64 [N]."""
        return self.input_ids[:, 1:][self._predicted]

    @property
    def sequence(self) -> Tensor:
        """The row that each supervised token belongs to, int64 [N]."""
        mask = self._predicted
        return torch.arange(len(mask), device=mask.device)[:, None].expand_as(mask)[mask]

    @property
    def has_target(self) -> Tensor:
        """Whether a row has a supervised token, bool [B]."""
        return self._predicted.any(dim=1)

    @property
    def target_count(self) -> Tensor:
        """N, the number of supervised tokens, int64 []: on the device, so that nothing waits for it."""
        return self._predicted.sum()

    @property
    def _predicted(self) -> Tensor:
        """Whether the token after each position is supervised, bool [B, T - 1]."""
        return self.loss_mask[:, 1:]

    def by_method(self) -> list["Batch"]:
        """Return the rows of each method as a separate batch, as wide as its longest row."""
        if not self.methods:
            return [self]
        return [self._of_method(method) for method in sorted(set(self.methods))]

    def _of_method(self, method: int) -> "Batch":
        return self._take([row for row, number in enumerate(self.methods) if number == method], method)

    def share(self, index: int, count: int) -> "Batch":
        """Return the rows that one of several processes trains on, as wide as the longest of them.

        Where there are fewer rows than processes, some get the first row with nothing supervised.

        Args:
            index: of the process.
            count: of the processes.
        """
        if count == 1:
            return self
        if index < len(self.input_ids):
            return self._take(list(range(index, len(self.input_ids), count)), self.method)
        first = self._take([0], self.method)
        return replace(first, loss_mask=torch.zeros_like(first.loss_mask))

    def _take(self, rows: list[int], method: int) -> "Batch":
        width = int(self.attention_mask[rows].sum(dim=1).max())
        ids, attention_mask, loss_mask = (
            tensor[rows][:, :width] for tensor in (self.input_ids, self.attention_mask, self.loss_mask)
        )
        keys, annotators = ([values[row] for row in rows] if values else [] for values in (self.keys, self.annotators))
        author = None if self.author is None else self.author[rows]
        return Batch(ids, attention_mask, loss_mask, keys, author, annotators, method=method)

    def to(self, device: Any, *, non_blocking: bool = False) -> "Batch":
        """Return the batch with its tensors on a device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: value.to(device, non_blocking=non_blocking) for name, value in tensors.items()})

    def pin_memory(self) -> "Batch":
        """Return the batch in memory that a GPU copies from while it computes; a data loader calls this."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: value.pin_memory() for name, value in tensors.items()})

    def prompts(self) -> list[list[int]]:
        """Return the tokens before the last answer of each row, which is its last run of supervised tokens.

        Raises:
            InputError: a row that is all answer, such as a raw text.
        """
        return [prompt for prompt, _ in self.split_rows()]

    def split_rows(self) -> list[tuple[list[int], list[int]]]:
        """Return prompt and last answer of each row, without what a chat template writes after the answer.

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


def pad(rows: Sequence[Any], value: int, *, left: bool = False, dtype: torch.dtype = torch.int64) -> Tensor:
    """Return rows of different lengths as one tensor [B, T], filled up with a value on the right or on the left.

    >>> pad([[5, 6], [7]], 0, left=True)
    tensor([[5, 6],
            [0, 7]])
    """
    tensors = [torch.tensor(row, dtype=dtype) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side="left" if left else "right")


def make_batch(rows: Sequence[Any], loss_masks: Sequence[Any], pad_token_id: int) -> Batch:
    """Return token ids and loss masks, one sequence of each per row, as a batch padded on the right."""
    input_ids, lengths = pad(rows, pad_token_id), torch.tensor([len(row) for row in rows])
    attention_mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
    return Batch(input_ids, attention_mask, pad(loss_masks, False, dtype=torch.bool))


def collate(encoded: Encoded, indices: Sequence[int] | np.ndarray, pad_token_id: int) -> Batch:
    """Return the sequences at those positions as a batch, padded on the right to the longest of them."""
    rows, masks = ([read(i) for i in indices] for read in (encoded.ids_of, encoded.supervised_of))
    return replace(make_batch(rows, masks, pad_token_id), keys=[encoded.key_of(i) for i in indices])


def plan_batches(lengths: np.ndarray, batch_size: int, count: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Return `count` micro-batches of example positions, each of exactly `batch_size`.

    The examples are taken from one random permutation after another, so that the numbers of times that two of them
    are seen differ by at most one. Within each group of a few batches the examples are sorted by length, which saves
    padding, and the batches of the group are shuffled.

    Args:
        lengths: int [n], tokens per example.
        batch_size: sequences per micro-batch.
        count: number of micro-batches.
        generator: the only source of randomness.

    Returns:
        `count` arrays of int64 [batch_size].
    """
    needed = count * batch_size
    epochs = -(-needed // len(lengths))
    stream = np.concatenate([generator.permutation(len(lengths)) for _ in range(epochs)])[:needed]
    plan: list[np.ndarray] = []
    for start in range(0, needed, batch_size * _SORTED_TOGETHER):
        group = stream[start : start + batch_size * _SORTED_TOGETHER]
        group = group[np.argsort(lengths[group], kind="stable")].reshape(-1, batch_size)
        plan.extend(generator.permutation(group))
    return plan


def plan_mixed_batches(
    lengths: np.ndarray,
    parts: Sequence[tuple[int, float]],
    step: tuple[int, int],
    steps: int,
    generator: np.random.Generator,
) -> list[np.ndarray]:
    """Return the micro-batches of optimizer steps in which each part of the examples has its share.

    Each part is taken from one random permutation after another. The numbers that a step takes of the parts are the
    shares, rounded so that they are right over several steps. Within a step the examples are sorted by length.

    Args:
        lengths: int [n], tokens per example, one part after the other.
        parts: for each its number of examples, and its share of a step; the shares sum to 1.
        step: micro-batches of an optimizer step, and sequences of a micro-batch.
        steps: number of optimizer steps.
        generator: the only source of randomness.

    Returns:
        steps times micro-batches arrays of int64 [sequences].
    """
    micro_batches, batch_size = step
    size = micro_batches * batch_size
    total = size * steps
    # A part with share s has its turns at 0.5 / s, 1.5 / s, ...: merged, every stretch of turns has all shares.
    turns = [(np.arange(int(total * share) + 2) + 0.5) / share for _, share in parts]
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in turns])
    owner = owner[np.argsort(np.concatenate(turns), kind="stable")][:total]
    stream, start = np.empty(total, dtype=np.int64), 0
    for number, (examples, _) in enumerate(parts):
        count = int((owner == number).sum())
        rounds = [generator.permutation(examples) for _ in range(-(-count // examples))]
        stream[owner == number] = start + np.concatenate([*rounds, np.empty(0, dtype=np.int64)])[:count]
        start += examples
    plan: list[np.ndarray] = []
    for rows in stream.reshape(steps, size):
        rows = generator.permutation(rows)
        plan.extend(generator.permutation(rows[np.argsort(lengths[rows], kind="stable")].reshape(-1, batch_size)))
    return plan


class PlannedBatches(Dataset):
    """A data set whose items are whole micro-batches.

    Args:
        encoded: the sequences.
        plan: positions of the sequences of each micro-batch.
        pad_token_id: fills up shorter rows.
        annotators: who wrote the answers of each sequence; unknown without it.
        methods: int64 [n], number of the stage's method that trains each sequence; None where one method trains all.
    """

    def __init__(
        self,
        encoded: Encoded,
        plan: list[np.ndarray],
        pad_token_id: int,
        annotators: Sequence[str] | None = None,
        methods: np.ndarray | None = None,
    ):
        self.encoded, self.plan, self.pad_token_id = encoded, plan, pad_token_id
        self.annotators, self.methods = annotators, methods

    def taking(self, plan: list[np.ndarray]) -> "PlannedBatches":
        """Return other micro-batches of the same sequences."""
        return PlannedBatches(self.encoded, plan, self.pad_token_id, self.annotators, self.methods)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Batch:
        rows = self.plan[index]
        annotators = [] if self.annotators is None else [self.annotators[row] for row in rows]
        methods = [] if self.methods is None else self.methods[rows].tolist()
        return replace(collate(self.encoded, rows, self.pad_token_id), annotators=annotators, methods=methods)


def each_example_once(encoded: Encoded, batch_size: int, pad_token_id: int) -> list[Batch]:
    """Return every example once, in batches of similar length, which saves padding."""
    order = np.argsort(encoded.lengths, kind="stable")
    return [
        collate(encoded, order[start : start + batch_size], pad_token_id) for start in range(0, len(order), batch_size)
    ]
