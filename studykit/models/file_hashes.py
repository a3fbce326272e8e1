"""The sha256 of a model's files, computed once: remembered on disk under path, size, time stamp and inode of the file.

    file_sha256(folder / "model.safetensors")

A study names the same weights in every run, and reading gigabytes anew for each takes longer than checking the rest.
"""

import hashlib
import json
import os
import re
import time
from pathlib import Path

from studykit.files import cache_folder, replacing

_SETTLED_NS = 2_000_000_000
"""Content may change again within one tick of a file system's clock: such a young file is not remembered."""


def file_sha256(file: Path) -> str:
    """Return the sha256 of a file's content, 64 hexadecimal digits."""
    before = _identity(file)
    key = hashlib.sha256(json.dumps(before).encode()).hexdigest()[:32]
    remembered = cache_folder("file-hashes") / key
    if (known := _read(remembered)) is not None:
        return known
    is_settled = time.time_ns() - os.stat(file).st_mtime_ns > _SETTLED_NS
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if is_settled and _identity(file) == before:
        with replacing(remembered, durable=False) as temporary:
            temporary.write_text(digest, encoding="ascii")
    return digest


def _identity(file: Path) -> list[str | int]:
    found = file.stat()
    return [str(file.resolve()), found.st_size, found.st_mtime_ns, found.st_ino]


def _read(remembered: Path) -> str | None:
    try:
        text = remembered.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return text if re.fullmatch("[0-9a-f]{64}", text) else None
