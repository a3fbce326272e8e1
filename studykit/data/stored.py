"""Examples on disk as a sequence: a sampler ranks a million of them, and the texts of those that are drawn are read.

pool = StoredExamples(file, tables.read(file))
pool[7].answer, pool.column("source"), pool.take(rows)
"""

import hashlib
import json
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from studykit.data.tables import Mapped
from studykit.sources import COLUMNS, Example

_ROWS = 1024
"""Of each batch of a table but the last."""

_TEXTS = "texts"
_TYPES: dict[str, pa.DataType] = {"is_answered": pa.bool_(), "turns": pa.int64()}
_TYPES |= dict.fromkeys(("text_key", "answer_key"), pa.binary(16))

SCHEMA = pa.schema([(name, _TYPES.get(name, pa.string())) for name in COLUMNS] + [(_TEXTS, pa.large_binary())])


def to_batches(examples: Iterable[Example]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of examples, a thousand at a time."""
    left = iter(examples)
    while part := list(islice(left, _ROWS)):
        columns = {name: [getattr(example, name) for example in part] for name in COLUMNS}
        columns[_TEXTS] = [json.dumps([e.messages, e.choices], ensure_ascii=False).encode() for e in part]
        yield pa.record_batch(columns, schema=SCHEMA)


class StoredExamples(Sequence[Example]):
    """Examples that lie in a table on disk; each is read when it is looked at.

    Args:
        file: of the table, named by its content.
        mapped: the table, with the columns of `SCHEMA`, in batches as `to_batches` makes them.
        rows: int64 [n], of the table; None for all.
    """

    def __init__(self, file: Path, mapped: Mapped, rows: np.ndarray | None = None):
        self._file, self._mapped = file, mapped
        self._descriptor = os.open(file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._batches = mapped.table.to_batches()
        buffers = [batch[_TEXTS].buffers() for batch in self._batches]
        self._texts = [(np.frombuffer(ends, np.int64), texts.address - mapped.start) for _, ends, texts in buffers]
        self._rows = np.arange(mapped.table.num_rows) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self._read(row) for row in self._rows[index].tolist()]
        return self._read(int(self._rows[index]))

    def __iter__(self) -> Iterator[Example]:
        return (self._read(int(row)) for row in self._rows)

    def _read(self, row: int) -> Example:
        number, row = divmod(row, _ROWS)
        batch, (ends, start) = self._batches[number], self._texts[number]
        values: dict[str, Any] = {name: batch[name][row].as_py() for name in ("id", "source", "annotator", "split")}
        # Read from the file: mapped pages, and those beside them, would count as memory of the process.
        size, place = int(ends[row + 1] - ends[row]), start + int(ends[row])
        messages, choices = json.loads(os.pread(self._descriptor, size, place))
        return Example(**values, messages=tuple(messages), choices=tuple(choices))

    def column(self, name: str) -> np.ndarray:
        """Return one of the `COLUMNS` of all examples, [n]; see `studykit.sources.column`."""
        return self._mapped.table[name].to_numpy()[self._rows]

    def take(self, rows: np.ndarray) -> "StoredExamples":
        """Return the examples at these positions, in this order; nothing is read."""
        return StoredExamples(self._file, self._mapped, self._rows[rows])

    @property
    def key(self) -> str:
        """Hash of the content and the order of the examples, 64 hexadecimal digits."""
        return hashlib.sha256(self._file.name.encode() + self._rows.tobytes()).hexdigest()
