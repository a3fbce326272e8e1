"""What the tests of rollouts share: a rollout made with the options of its test file, and its rows taken apart."""

from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from studykit.collate import Batch
from studykit.discovery import Option, options_of
from studykit.losses import Author
from studykit.rollouts import ROLLOUTS, Rollout, get_rollout

V, END, PAD = 85, 2, 0
ROWS = [0, 6, 13, 3, 20]


def case_of(name: str) -> ModuleType:
    """Return the test file of a rollout, `test_<name>.py`. Constants in it are options of the tests of all rollouts:

    AUTHORS: who writes the answers, the student alone by default; with two, each answers each prompt in turn.
    OPTIONS: with these, every batch is generated.
    REFUSED: values out of range, by option.
    METHOD_OPTIONS: options of the methods that use the rollout, for a run of few steps.
    FROM_BUFFER: True where rows come out of a buffer, and not in the order of the batch.
    """
    return import_module(f"test_{name}")


def authors_of(name: str) -> tuple[Author, ...]:
    return getattr(case_of(name), "AUTHORS", (Author.STUDENT,))


def takes(name: str) -> dict[str, Option]:
    """Return the options of a rollout by name."""
    return dict(options_of(ROLLOUTS.member(name)))


GENERATING = [name for name in ROLLOUTS.names() if "max_new_tokens" in takes(name)]


def make_rollout(name: str, **options: Any) -> Rollout:
    return get_rollout(name, **(getattr(case_of(name), "OPTIONS", {}) | options))


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
