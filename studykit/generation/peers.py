"""Rows of a batch dealt out to the processes that train together: each computes its own, and all get all results.

    with dealing():
        completions = generate(...)            # the same call in every process, and the same completions in each
        nll = reference_nll(...)

Row i is computed by process i modulo their number. Random numbers are drawn for all rows in every process, so that
answers do not depend on the number of processes, and all generators stay in the same state. The processes take their
forward passes together: one whose rows have ended goes on until all have, since each may hold a part of the weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import gather_object, reduce

T = TypeVar("T")


@dataclass(frozen=True)
class Peers:
    """The processes that compute a batch together.

    Attributes:
        index: of this process.
        count: of the processes.
    """

    index: int = 0
    count: int = 1

    def own(self, rows: Any) -> Any:
        """Return those of the rows that this process computes; of fewer rows than processes, none for some.

        >>> list(Peers(1, 3).own(range(7)))
        [1, 4]
        """
        return rows[self.index :: self.count]

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        if self.count == 1:
            return flag
        total: Any = reduce(torch.tensor([int(flag)], device=PartialState().device), reduction="sum")
        return bool(total)

    def gather(self, part: T) -> list[T]:
        """Return what each process has, in their order."""
        return [part] if self.count == 1 else gather_object([part])


_ALONE = Peers()
_PEERS: ContextVar[Peers] = ContextVar("peers", default=_ALONE)


def peers() -> Peers:
    """Return the processes that share the rows of a batch: this one alone outside of `dealing`."""
    return _PEERS.get()


@contextmanager
def alone() -> Iterator[None]:
    """Compute all rows in this process inside the block, whatever the others do."""
    token = _PEERS.set(_ALONE)
    try:
        yield
    finally:
        _PEERS.reset(token)


@contextmanager
def dealing() -> Iterator[None]:
    """Deal rows out to all processes inside the block, in which all of them make the same calls."""
    token = _PEERS.set(Peers(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else _ALONE)
    try:
        yield
    finally:
        _PEERS.reset(token)
