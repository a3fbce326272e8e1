"""The files that the parameters of a notebook name, as hashes: data files and the weights in model folders. Torch-free.

The id of a cell of a batch is a hash of notebook code and parameters. If a parameter names a file, the file's content
is part of it: edited data or rebuilt weights make another cell.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studykit.files import json_object

_EMBEDDED = Path(__file__).parents[1] / "models" / "embedded"
_HASHED_UP_TO = 2**28
"""Bytes; for a larger file its size and time of change are hashed: reading a 70B model at every start takes minutes."""


def file_hashes(parameters: Any, folder: Path) -> list[str]:
    """Return one hash for every file that a text in the parameters names, sorted.

    Args:
        parameters: plain JSON data.
        folder: the folder that relative paths start from; `{split}` in a path stands for any name.
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
    for path in (_EMBEDDED / text, folder / Path(text).expanduser()):
        if "{split}" in path.name and (splits := sorted(path.parent.glob(path.name.replace("{split}", "*")))):
            return splits
        if path.is_file():
            return [path]
        if path.is_dir() and (weights := sorted(path.glob("*.safetensors"))):
            return weights + _files_of_base(path, folder)
    return []


def _files_of_base(adapters: Path, folder: Path) -> list[Path]:
    """Return the settings of adapters, and the files of the model that they belong to; none in any other folder."""
    try:
        config = json_object(json.loads((adapters / "adapter_config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []
    base = folder / Path(str(config.get("base_model_name_or_path") or ".")).expanduser()
    return [adapters / "adapter_config.json", *sorted(base.glob("*.safetensors"))]


def _hash(file: Path) -> str:
    status = file.stat()
    if status.st_size > _HASHED_UP_TO:
        return hashlib.sha256(f"{file.name} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
