"""Token sequences on disk: a safetensors file that is mapped into memory, with a checksum of each of its arrays.

    store(file, encoded)
    read(file)                       # None where the file is missing or not what was stored

The checksum is XXH3 (128 bits), at about 5 GB/s from memory. The first use of a file in a process reads it whole once,
through a buffer, so that the memory of the process does not grow; after that only what is looked at is read.
"""

import json
import logging
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from studykit.chat.encoded import Encoded
from studykit.files import replacing

_LOG = logging.getLogger(__name__)
_BUFFER = 2**17
_METADATA = "checksums"
_NAMES = [field.name for field in fields(Encoded)]


def store(file: Path, encoded: Encoded) -> None:
    """Write token sequences, whole and durable."""
    arrays: dict[str, np.ndarray] = {name: np.ascontiguousarray(getattr(encoded, name)) for name in _NAMES}
    checksums = {name: _checksum(array) for name, array in arrays.items()}
    with replacing(file) as temporary:
        save_file(arrays, temporary, metadata={_METADATA: json.dumps(checksums)})  # one entry: several have no order


def read(file: Path) -> Encoded | None:
    """Map token sequences into memory; None where the file is missing, cut off, or differs from its checksums."""
    try:
        status = file.stat()
        if not _is_intact(file, status.st_size, status.st_mtime_ns):
            _LOG.warning("%s is damaged: its tokens are computed again", file)
            return None
        with safe_open(file, framework="pt") as stored:  # numpy's reader would copy; writes stay in memory either way
            return Encoded(**{name: stored.get_tensor(name).numpy() for name in _NAMES})
    except (OSError, SafetensorError):
        return None


def _checksum(array: np.ndarray) -> str:
    return xxhash.xxh3_128_hexdigest(array.data, seed=array.itemsize)


@cache
def _is_intact(file: Path, size: int, changed_ns: int) -> bool:
    """Whether every array has its checksum; a file of that size and time of change is read once in a process."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
            wanted = json.loads(header["__metadata__"][_METADATA])
            return all(_checksum_on_disk(stream, 8 + length, header[name]) == wanted[name] for name in _NAMES)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError):
        return False


def _checksum_on_disk(stream: BinaryIO, base: int, entry: dict[str, Any]) -> str:
    start, end = entry["data_offsets"]
    width = {"I32": 4, "I64": 8, "BOOL": 1}[entry["dtype"]]
    digest, buffer = xxhash.xxh3_128(seed=width), memoryview(bytearray(_BUFFER))
    stream.seek(base + start)
    while start < end and (count := stream.readinto(buffer[: min(_BUFFER, end - start)])):  # type: ignore[attr-defined]
        digest.update(buffer[:count])
        start += count
    return digest.hexdigest()
