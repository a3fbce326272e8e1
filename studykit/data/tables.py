"""Arrow tables on disk, mapped into memory, with a JSON file beside each that holds its checksum and facts on it.

    write(file, schema, batches, facts)
    table, facts, _ = read(file)             # None where the file is missing, or not what was written

The JSON file is written last, so that its existence means complete. The checksum is XXH3 (128 bits). The first use of a
table in a process reads it whole once, through a buffer; after that only what is looked at is read.
"""

import json
import logging
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import xxhash

from studykit.files import json_object, replacing, seal, unseal, write_json

_LOG = logging.getLogger(__name__)
_BUFFER = 2**20
_CHECKSUM = "checksum"


def write(file: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], facts: dict[str, Any]) -> None:
    """Write a table, one batch after the other.

    Args:
        file: of the table; the JSON file beside it has the same name.
        schema: of the table.
        batches: its rows.
        facts: plain JSON data on the table; what the last batch has put into them is written too.
    """
    with replacing(file, durable=False) as temporary:  # a crash of the machine shows in the checksum
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        checksum = _checksum(temporary)
    write_json(file.with_suffix(".json"), seal(facts | {_CHECKSUM: checksum}))


class Mapped(NamedTuple):
    """A table on disk.

    Attributes:
        table: mapped into memory.
        facts: that were written with it.
        start: address in memory of the first byte of its file.
    """

    table: pa.Table
    facts: dict[str, Any]
    start: int


def read(file: Path) -> Mapped | None:
    """Map a table into memory, and read its facts; None where one of them is missing or damaged."""
    beside = file.with_suffix(".json")
    if not (file.exists() and beside.exists()):
        return None
    try:
        facts = unseal(json_object(json.loads(beside.read_text(encoding="utf-8"))))
        status = file.stat()
        if facts.pop(_CHECKSUM) == _checksum_of(file, status.st_size, status.st_mtime_ns):
            mapped = pa.memory_map(str(file))
            start = mapped.read_buffer(1).address
            return Mapped(pa.ipc.open_file(mapped).read_all(), facts, start)
    except (OSError, ValueError, KeyError):
        pass
    _LOG.warning("%s is damaged: it is made anew", file)
    return None


@cache
def _checksum_of(file: Path, size: int, changed_ns: int) -> str:
    """Return the checksum of a file of that size and time of change, which is read once in a process."""
    return _checksum(file)


def _checksum(file: Path) -> str:
    digest, buffer = xxhash.xxh3_128(), memoryview(bytearray(_BUFFER))
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
