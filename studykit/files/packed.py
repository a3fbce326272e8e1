"""Files that may be packed: where only `NAME.gz` is there, it stands for `NAME`, with the same content.

pack(folder / "items.jsonl")                     # leaves items.jsonl.gz, the same bytes for the same content
read_packed(folder / "items.jsonl")              # the content, packed or not
"""

import gzip
import zlib
from io import BufferedReader
from pathlib import Path


def place_of(file: Path) -> Path:
    """Return the packed file where only that one is there, otherwise the file itself."""
    packed = file.with_name(f"{file.name}.gz")
    return packed if not file.exists() and packed.exists() else file


def open_packed(file: Path) -> BufferedReader | gzip.GzipFile:
    """Open a file that may be packed, to read bytes; damage raises an `OSError`, `EOFError` or `zlib.error`."""
    place = place_of(file)
    if place == file:
        return place.open("rb")
    if not place.stat().st_size:
        raise EOFError("it is empty")  # which gzip takes for packed nothing
    return gzip.open(place)


def read_packed(file: Path) -> bytes:
    """Return the content of a file that may be packed.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: what is packed is damaged.
    """
    try:
        with open_packed(file) as stream:
            return stream.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file}.gz is damaged ({error})") from error


def pack(file: Path) -> None:
    """Replace a file by its packed form."""
    file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    file.unlink()
