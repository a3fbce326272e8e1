"""What the parameters of a notebook name on disk: data files and model folders, by content. Torch-free.

A cell of a batch is known by notebook code and parameters. If a parameter names a file, it is the file's content that
counts: data edited since, or weights rebuilt, make another cell.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_EMBEDDED = Path(__file__).parents[1] / "models" / "embedded"
_HASHED_UP_TO = 2**28
"""Larger files are known by size and time of change: hashing a 70B model at every start would take minutes."""


def contents_of(parameters: Any, folder: Path) -> list[str]:
    """Return one hash for every file that a text among the parameters names.

    Args:
        parameters: plain JSON data.
        folder: where relative paths start; `{split}` in a path stands for any name.
    """
    return sorted(_hash(file) for text in set(_texts(parameters)) for file in _files(text, folder))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _files(text: str, folder: Path) -> list[Path]:
    if not text or "\n" in text or len(text) > 500:
        return []
    for place in (_EMBEDDED / text, folder / Path(text).expanduser()):
        if "{split}" in place.name and (found := sorted(place.parent.glob(place.name.replace("{split}", "*")))):
            return found
        if place.is_file():
            return [place]
        if place.is_dir() and (weights := sorted(place.glob("*.safetensors"))):
            return weights
    return []


def _hash(file: Path) -> str:
    facts = file.stat()
    if facts.st_size > _HASHED_UP_TO:
        return hashlib.sha256(f"{file.name} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
