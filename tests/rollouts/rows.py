"""What the tests of rollouts share: a rollout made with options, and the rows that it gives, taken apart."""

from typing import Any

import torch

from studykit.collate import Batch
from studykit.rollouts import get_rollout

V, END, PAD = 85, 2, 0
ROWS = [0, 6, 13, 3, 20]
OPTIONS: dict[str, dict[str, Any]] = {"replay": {"threshold": 1.0}, "mixed": {"lmbda": 1.0}}


def make_rollout(name, **options):
    return get_rollout(name, **(OPTIONS.get(name, {}) | options))


def rows_of(batch: Batch) -> list[tuple[list[int], list[int]]]:
    """Return prompt and answer of each row, and check that nothing else is in it."""
    assert batch.input_ids.dtype == batch.attention_mask.dtype == torch.int64
    assert batch.loss_mask.dtype == torch.bool
    made = []
    parts = (batch.input_ids.tolist(), batch.attention_mask.tolist(), batch.loss_mask.tolist())
    for ids, mask, loss_mask in zip(*parts, strict=True):
        length, start = sum(mask), loss_mask.index(True)
        assert mask == [1] * length + [0] * (len(ids) - length)
        assert loss_mask == [False] * start + [True] * (length - start) + [False] * (len(ids) - length)
        assert set(ids[length:]) <= {PAD}
        made.append((ids[:start], ids[start:length]))
    return made


def equal(left: Batch, right: Batch) -> bool:
    tensors = [(b.input_ids, b.attention_mask, b.loss_mask, b.author) for b in (left, right)]
    return all(a is b or torch.equal(a, b) for a, b in zip(*tensors, strict=True))


def gives(rollout, batch, context) -> list:
    return rows_of(rollout(batch, context))
