"""The records of a user's data file, whatever wrote it: JSON lines, one list, a table, plain or compressed.

    for where, number, record in read_records(Path("data/train.jsonl.gz")):
        ...                                  # "data/train.jsonl.gz:1", 1, {"prompt": ..., "completion": ...}

    one JSON object per line             .jsonl, as trl, OpenAI, Together, Mistral and `datasets` write it
    a list of objects                    .json of LLaMA-Factory and of `to_json(lines=False)`, also under "data"
    a table                              .parquet, .arrow, .csv; every cell of a CSV file is a text
    compressed                           gzip, bzip2, xz, zstd

What a file is, its first bytes tell; its name decides for CSV alone.
"""

import bz2
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from studykit.errors import InputError

Record = dict[str, Any]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LIST = re.compile(r'\s*(?:\{\s*"data"\s*:\s*)?\[')
_SEPARATOR = re.compile(r"[\s,]*")
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_records(file: Path) -> Iterator[tuple[str, int, Record]]:
    """Yield place, number and content of every record; blank lines and a byte order mark are skipped.

    The number is that of the line, of the item in a list, or of the row in a table.

    Raises:
        InputError: no such file, or something in it that is no record, by file and line.
    """
    try:
        with file.open("rb") as stream:
            yield from _records(file, stream)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"cannot read {file}: {error}") from None


def _records(file: Path, stream: BinaryIO) -> Iterator[tuple[str, int, Record]]:
    head = stream.read(8)
    stream.seek(0)
    for magic, open_stream in _COMPRESSED.items():
        if head.startswith(magic):
            yield from _records_of_text(file, file.with_suffix("").suffix, open_stream(stream))
            return
    for magic, read_batches in _TABLES.items():
        if head.startswith(magic):
            yield from _rows(file, read_batches(file))
            return
    yield from _records_of_text(file, file.suffix, stream)


def _records_of_text(file: Path, suffix: str, stream: BinaryIO) -> Iterator[tuple[str, int, Record]]:
    if suffix == ".csv":
        yield from _rows(file, _csv_batches(file, stream))
        return
    lines = enumerate(stream, 1)
    for number, line in lines:
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line.strip():
            continue
        if _is_line(line):
            yield from _lines(file, number, line)
            break
        yield from _items(file, number, line + stream.read())
        return
    for number, line in lines:
        if line.strip():
            yield from _lines(file, number, line)


def _is_line(line: bytes) -> bool:
    """Whether a file's first line is a record, and not the beginning of one value that fills the file."""
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return not _LIST.match(line.decode("utf-8", errors="replace")) and line.strip() != b"{"
    items = first.get("data") if isinstance(first, dict) else None
    is_nested = (
        isinstance(items, list) and items and isinstance(items[0], dict) and not {"role", "from"} & set(items[0])
    )
    return not is_nested and not isinstance(first, list)


def _lines(file: Path, number: int, line: bytes) -> Iterator[tuple[str, int, Record]]:
    where = f"{file}:{number}"
    text = _decode(where, line)
    record, end = _parse(where, text, len(text) - len(text.lstrip()))
    if text[end:].strip():
        raise InputError(f"{where}: not JSON (Extra data at column {end + 1}); one JSON object per line is expected")
    yield where, number, record


def _items(file: Path, first_line: int, content: bytes) -> Iterator[tuple[str, int, Record]]:
    """Yield the objects of a list that fills the file, or stands under its key "data"."""
    text = "\n" * (first_line - 1) + _decode(str(file), content)
    opening = _LIST.match(text)
    if opening is None:
        raise InputError(f"{file}:{first_line}: one JSON object per line is expected, or a list of objects")
    at, line, number = opening.end(), 1 + text.count("\n", 0, opening.end()), 0
    while True:
        start = _SEPARATOR.match(text, at).end()  # pyright: ignore[reportOptionalMemberAccess]  it matches nothing too
        line, number = line + text.count("\n", at, start), number + 1
        if text.startswith("]", start):
            return
        where = f"{file}:{line} (item {number})"
        record, at = _parse(where, text, start)
        yield where, number, record
        line += text.count("\n", start, at)


def _parse(where: str, text: str, start: int) -> tuple[Record, int]:
    """Return the JSON object that begins at a character, and where it ends.

    Raises:
        InputError: no JSON, no object, or half of a surrogate pair in it, which no tokenizer takes.
    """
    try:
        record, end = json.JSONDecoder().raw_decode(text, start)
        if "\\u" in text[start:end] and (half := _SURROGATE.search(json.dumps(record, ensure_ascii=False))):
            raise InputError(f"{where}: half of a surrogate pair ({half[0]!a}): cut text; repair it")
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{where}: not JSON ({error.msg} at {place}); one JSON object per line is expected") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: JSON that cannot be read ({str(error)[:80]})") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: a JSON object is expected, received {type(record).__name__}")
    return record, end


def _decode(where: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: not UTF-8 (byte 0x{content[error.start]:02x}): cannot read it; save the file as UTF-8"
        ) from None


def _rows(file: Path, batches: Iterator[list[Record]]) -> Iterator[tuple[str, int, Record]]:
    """Yield the rows of a table.

    Raises:
        InputError: a damaged file.
    """
    number = 0
    try:
        for batch in batches:
            for row in batch:
                number += 1
                yield f"{file}:{number}", number, row
    except (OSError, ValueError) as error:  # those of pyarrow and pandas are among them
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {file}: {' '.join(str(error).split())[:200]}") from None


def _parquet_batches(file: Path) -> Iterator[list[Record]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as table:
        for batch in table.iter_batches():
            yield batch.to_pylist()


def _arrow_batches(file: Path) -> Iterator[list[Record]]:
    import pyarrow

    with pyarrow.OSFile(str(file)) as source, pyarrow.ipc.open_stream(source) as batches:
        for batch in batches:
            yield batch.to_pylist()


def _arrow_file_batches(file: Path) -> Iterator[list[Record]]:
    import pyarrow

    with pyarrow.OSFile(str(file)) as source, pyarrow.ipc.open_file(source) as batches:
        for number in range(batches.num_record_batches):
            yield batches.get_batch(number).to_pylist()


def _csv_batches(file: Path, stream: BinaryIO) -> Iterator[list[Record]]:
    import pandas as pd

    try:
        with pd.read_csv(stream, dtype=str, keep_default_na=False, chunksize=10_000, encoding="utf-8-sig") as chunks:
            for chunk in chunks:
                rows = chunk.to_dict("records")
                yield [{str(name): cell for name, cell in row.items() if cell != ""} for row in rows]
    except UnicodeDecodeError:
        raise InputError(f"cannot read {file}: not UTF-8; save the file as UTF-8") from None


def _open_zstd(stream: BinaryIO) -> BinaryIO:
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(stream, "zstd"))


_COMPRESSED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zstd,
}
"""How a stream is read, by the bytes that it begins with."""

_TABLES: dict[bytes, Callable[[Path], Iterator[list[Record]]]] = {
    b"PAR1": _parquet_batches,
    b"ARROW1": _arrow_file_batches,
    b"\xff\xff\xff\xff": _arrow_batches,
}
"""How a table is read, by the bytes that its file begins with; an Arrow stream is what `datasets` keeps on disk."""
