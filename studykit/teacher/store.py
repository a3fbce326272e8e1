"""Byte strings on disk under content keys, in files that are written once: larger than memory, shared by processes.

    store = Store(folder)
    store.want(keys)                       # only wanted keys enter the index
    store.refresh()                        # opens the shards that this or other processes have written
    store.write(keys[~store.has(keys)], parts)
    parts = store.read(keys)               # views of mapped files: uint8 arrays

A shard is a safetensors file named by its content: keys uint8 [n, 16], ends int64 [n], checksums int32 [n] (the bits of
zlib.crc32 over key and bytes) and data uint8 [bytes], one entry after the other; its metadata holds the crc32 of the
first three. It appears under its name in one step, so a killed writer loses only the entries that were in no shard yet.
Two processes may write the same entry; either one is read.
"""

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from studykit.errors import Failure
from studykit.files import remove_leftovers, replacing

_KEY = "S16"
"""Sixteen bytes that numpy sorts and compares as one value."""

_TENSORS = ("keys", "ends", "checksums", "data")
_KINDS = [("|u1", 2), ("<i8", 1), ("<i4", 1), ("|u1", 1)]


def as_keys(names: Sequence[str]) -> np.ndarray:
    """Convert keys of 32 hexadecimal digits into the array that a store takes, [n].

    >>> as_keys(["00" * 15 + "ff"]).view(np.uint8).tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255]
    """
    return np.frombuffer(bytearray.fromhex("".join(names)), dtype=_KEY)


class Store:
    """Entries of one folder; memory holds only the index of wanted keys and the pages that were read.

    Args:
        folder: created if it does not exist.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._shards: list[_Shard] = []
        self._opened: set[str] = set()
        self._wanted = np.empty(0, dtype=_KEY)  # sorted
        self._positions = np.empty((0, 2), dtype=np.int32)  # shard and entry of each wanted key, or -1
        remove_leftovers(folder)

    def want(self, keys: np.ndarray) -> None:
        """Add keys to the index."""
        wanted = np.union1d(self._wanted, keys)
        if len(wanted) == len(self._wanted):
            return
        self._wanted, self._positions = wanted, np.full((len(wanted), 2), -1, dtype=np.int32)
        for number in range(len(self._shards)):
            self._index(number)

    def refresh(self) -> None:
        """Open the shards that were written since the last call.

        Raises:
            Failure: a shard is cut off or unreadable.
        """
        for file in sorted(self.folder.glob("[!.]*.safetensors")):
            self._open(file)

    def has(self, keys: np.ndarray) -> np.ndarray:
        """Return which of these wanted keys have an entry, bool [n]."""
        return self._locate(keys)[:, 0] >= 0

    def read(self, keys: np.ndarray) -> list[np.ndarray]:
        """Return the bytes of wanted keys, uint8 [bytes] each; the first read of an entry checks its checksum.

        Raises:
            KeyError: a key has no entry.
            Failure: an entry is damaged.
        """
        return [self._read_entry(*position) for position in self._locate(keys).tolist()]

    def size(self, keys: np.ndarray) -> float:
        """Return the bytes on disk that entries take, with their share of header and index of their shards."""
        positions = self._locate(keys)
        numbers = positions[:, 0]
        return sum(self._shards[number].size(positions[numbers == number, 1]) for number in np.unique(numbers))

    def write(self, keys: np.ndarray, parts: Sequence[bytes]) -> None:
        """Write one shard, and open it."""
        rows = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 16)
        checksums = [zlib.crc32(part, zlib.crc32(row.data)) for row, part in zip(rows, parts, strict=True)]
        index = {
            "keys": rows,
            "ends": np.cumsum([len(part) for part in parts], dtype=np.int64),
            "checksums": np.array(checksums, dtype=np.uint32).view(np.int32),
        }
        data = np.frombuffer(bytearray().join(parts), dtype=np.uint8)
        content = save(index | {"data": data}, metadata={"index": _compute_checksum(*index.values())})
        file = self.folder / f"{hashlib.sha256(content).hexdigest()[:32]}.safetensors"
        with replacing(file) as temporary:
            temporary.write_bytes(content)
        self._open(file)

    def _open(self, file: Path) -> None:
        if file.name not in self._opened:
            self._shards.append(_Shard(file))
            self._opened.add(file.name)
            self._index(len(self._shards) - 1)

    def _index(self, number: int) -> None:
        """Record the positions of wanted keys in a shard, except those with a position in another shard."""
        at, wanted = self._search(self._shards[number].keys)
        entries = np.flatnonzero(wanted)
        new = self._positions[at[entries], 0] < 0
        self._positions[at[entries[new]], 0] = number
        self._positions[at[entries[new]], 1] = entries[new]

    def _locate(self, keys: np.ndarray) -> np.ndarray:
        """Return shard and entry of each key, -1 where it has none, int32 [n, 2]."""
        at, wanted = self._search(keys)
        if not wanted.all():
            raise KeyError(f"{int((~wanted).sum())} of {len(keys)} keys were never wanted: call want() first")
        return self._positions[at]

    def _search(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of keys in the index, int64 [n], and which of them are in it at all, bool [n]."""
        if not len(self._wanted):
            return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=bool)
        at = np.searchsorted(self._wanted, keys).clip(max=len(self._wanted) - 1)
        return at, self._wanted[at] == keys

    def _read_entry(self, number: int, entry: int) -> np.ndarray:
        if number < 0:
            raise KeyError(f"{self.folder} has no such entry")
        return self._shards[number].read(entry)


class _Shard:
    """One mapped file.

    Attributes:
        keys: of its entries, [n].
    """

    def __init__(self, file: Path):
        self.file = file
        try:
            # Through torch, whose tensors are views of the mapped file; those of safetensors.numpy are copies.
            with safe_open(file, framework="pt") as opened:
                rows, ends, checksums, data = (opened.get_tensor(name).numpy() for name in _TENSORS)
                index_checksum = (opened.metadata() or {}).get("index")
        except SafetensorError as error:
            raise self._describe_damage(str(error)) from None
        kinds = [(part.dtype.str, part.ndim) for part in (rows, ends, checksums, data)]
        bounds = np.concatenate([[0], ends.ravel()])
        if kinds != _KINDS or index_checksum != _compute_checksum(rows, ends, checksums) or bounds[-1] != len(data):
            raise self._describe_damage("its index does not match its checksum")
        self.keys = rows.reshape(-1).view(_KEY)
        self._overhead = (file.stat().st_size - len(data)) / max(1, len(ends))  # bytes per entry
        self._rows, self._bounds, self._checksums, self._data = rows, bounds, checksums.view(np.uint32), data
        self._checked = np.zeros(len(ends), dtype=bool)

    def size(self, entries: np.ndarray) -> float:
        sizes = self._bounds[entries + 1] - self._bounds[entries]
        return float(sizes.sum() + len(entries) * self._overhead)

    def read(self, entry: int) -> np.ndarray:
        part = self._data[self._bounds[entry] : self._bounds[entry + 1]]
        if not self._checked[entry]:
            if zlib.crc32(part.data, zlib.crc32(self._rows[entry].data)) != self._checksums[entry]:
                raise self._describe_damage(f"the bytes of entry {entry} do not match their checksum")
            self._checked[entry] = True
        return part

    def _describe_damage(self, why: str) -> Failure:
        return Failure(f"{self.file} is damaged ({why}): delete that file, and its entries are captured again")


def _compute_checksum(*arrays: np.ndarray) -> str:
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(array.data, checksum)
    return f"{checksum:08x}"
