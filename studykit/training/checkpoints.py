"""Checkpoints that are whole or not there: a marker with the hashes of all files is written last.

`transformers` resumes without complaint from a checkpoint that lost its optimizer or random state, with other weights
at the end. Here a checkpoint counts only if its marker is there and every file matches it; others are moved aside.
"""

import hashlib
import json
from pathlib import Path

from studykit.files import replacing

MARKER = "complete.json"


def mark_complete(checkpoint: Path) -> None:
    """Write the marker: the sha256 of every file in the checkpoint."""
    hashes = {name: _hash(checkpoint / name) for name in _files(checkpoint)}
    with replacing(checkpoint / MARKER) as temporary:
        temporary.write_text(json.dumps(hashes, indent=1, sort_keys=True), encoding="utf-8")


def newest_complete(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a folder, moving damaged ones to `damaged-*`; None without one."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda c: int(c.name.partition("-")[2]), reverse=True):
        if is_complete(checkpoint):
            return checkpoint
        checkpoint.rename(_free_name(folder / f"damaged-{checkpoint.name}"))
    return None


def is_complete(checkpoint: Path) -> bool:
    """Whether the marker is there and every file is as it says."""
    try:
        hashes = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        return all(_hash(checkpoint / name) == expected for name, expected in hashes.items())
    except (OSError, ValueError):
        return False


def _files(checkpoint: Path) -> list[str]:
    return sorted(
        str(file.relative_to(checkpoint)) for file in checkpoint.rglob("*") if file.is_file() and file.name != MARKER
    )


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _free_name(wished: Path) -> Path:
    number, name = 1, wished
    while name.exists():
        number, name = number + 1, wished.with_name(f"{wished.name}.{number}")
    return name
