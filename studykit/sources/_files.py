"""The records of a user's data file, whatever wrote it: JSON lines, one list, a table, plain or compressed.

    for where, number, record in read_records(Path("data/train.jsonl.gz")):
        ...                                  # "data/train.jsonl.gz:1", 1, {"prompt": ..., "completion": ...}

    one JSON object per line             .jsonl, as trl, OpenAI, Together, Mistral and `datasets` write it
    a list of objects                    .json of LLaMA-Factory and of `to_json(lines=False)`, also under "data"
    a table                              .parquet, .arrow, .csv; every cell of a CSV file is a text
    compressed                           gzip, bzip2, xz, zstd

What a file is, its first bytes tell; its name decides for CSV alone. Of any of them a part at a time is in memory: a
line, the next items of a list, a batch of rows.
"""

import bz2
import codecs
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any, BinaryIO

from studykit.errors import InputError
from studykit.sources._tables import Record, arrow_batches, arrow_file_batches, csv_batches, parquet_batches

_PART = 2**20
"""Bytes of a file that are read together, where lines do not divide it."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LIST = re.compile(r'\s*(?:\{\s*"data"\s*:\s*)?\[')
_CONVERSATION = re.compile(r'\s*\{\s*"data"\s*:\s*\[\s*\{\s*"(role|from)"')
_SEPARATOR = re.compile(r"[\s,]*")
_LONGEST_WORD = len("-Infinity") + 1
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
        yield from _rows(file, csv_batches(file, stream))
        return
    start, head = _first_line(stream)
    if not _is_line(head):
        yield from _items(_Text(file, start, head, stream))
        return
    first = head if head.endswith(b"\n") else head + stream.readline()
    for number, line in enumerate(chain([first], stream), start):
        if line.strip():
            yield from _lines(file, number, line)


def _first_line(stream: BinaryIO) -> tuple[int, bytes]:
    """Return number and content of the first line that is not blank, of which a part is enough."""
    number, line = 1, stream.readline(_PART).removeprefix(_BYTE_ORDER_MARK)
    while line and not line.strip():
        number, line = number + line.count(b"\n"), stream.readline(_PART)
    return number, line


def _is_line(line: bytes) -> bool:
    """Whether a file's first line is a record, and not the beginning of one value that fills the file."""
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        text = line.decode("utf-8", errors="replace")
        return bool(_CONVERSATION.match(text)) or (not _LIST.match(text) and text.strip() != "{")
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


class _Text:
    """A file's text, from its first line that is not blank: what has been read of it is dropped when more is read.

    Args:
        file: for messages.
        line: number of that line.
        head: the bytes that have been taken from the stream.
        stream: the bytes after them.

    Attributes:
        text: the part that is in memory.
        at: the next character.
        line: the number of its line.
    """

    def __init__(self, file: Path, line: int, head: bytes, stream: BinaryIO):
        self.file, self.line, self._stream = file, line, stream
        self._origin = line, 0  # line and column of the text's first character
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at = "", 0
        self._add(head)

    def skip(self, pattern: re.Pattern[str]) -> bool:
        """Go to the end of what a pattern matches here, where it does."""
        match, more = pattern.match(self.text, self.at), True
        while more and (len(self.text) <= _PART if match is None else match.end() == len(self.text)):
            more = self._read_more()
            match = pattern.match(self.text, self.at)
        if match is not None:
            self._go_to(match.end())
        return match is not None

    def has_more(self) -> bool:
        """Whether anything but whitespace is left."""
        while not self.text[self.at :].strip():
            self.at = len(self.text)
            if not self._read_more():
                return False
        return True

    def parse(self, where: str) -> Record:
        """Return the JSON object here, and go to its end."""
        while True:
            try:
                record, end = _parse(where, self.text, self.at, self._origin)
            except _CutError as error:
                if not self._read_more():
                    raise InputError(*error.args) from None
                continue
            self._go_to(end)
            return record

    def _go_to(self, at: int) -> None:
        self.line += self.text.count("\n", self.at, at)
        self.at = at

    def _read_more(self) -> bool:
        """Drop what is before the next character, and read as much as there is after it, or more; False at the end."""
        last = self.text.rfind("\n", 0, self.at)
        self._origin = self.line, self.at - last - 1 if last >= 0 else self._origin[1] + self.at
        self.text, self.at = self.text[self.at :], 0
        return self._add(self._stream.read(max(_PART, len(self.text))))

    def _add(self, content: bytes) -> bool:
        try:
            self.text += self._decoder.decode(content, final=not content)
        except UnicodeDecodeError as error:
            raise _not_utf8(str(self.file), error) from None
        return bool(content)


class _CutError(InputError):
    """A text that is no JSON object, and may become one when it goes on."""


def _items(text: _Text) -> Iterator[tuple[str, int, Record]]:
    """Yield the objects of a list that fills the file, or stands under its key "data"."""
    is_inside = text.text.lstrip().startswith("{")
    if not text.skip(_LIST):
        raise InputError(f"{text.file}:{text.line}: one JSON object per line is expected, or a list of objects")
    for number in count(1):
        text.skip(_SEPARATOR)
        if text.text.startswith("]", text.at):
            text.at += 1
            if not is_inside and text.has_more():
                raise InputError(f"{text.file}:{text.line}: not JSON (Extra data after the list of objects)")
            return
        where = f"{text.file}:{text.line} (item {number})"
        yield where, number, text.parse(where)


def _parse(where: str, text: str, start: int, origin: tuple[int, int] = (1, 0)) -> tuple[Record, int]:
    """Return the JSON object that begins at a character, and where it ends.

    Args:
        where: for messages.
        text: holds the object.
        start: its first character.
        origin: line and column of the text's first character.

    Raises:
        InputError: no JSON, no object, or half of a surrogate pair in it, which no tokenizer takes.
    """
    try:
        record, end = _DECODER.raw_decode(text, start)
        if "\\u" in text[start:end] and (half := _SURROGATE.search(json.dumps(record, ensure_ascii=False))):
            raise InputError(f"{where}: half of a surrogate pair ({half[0]!a}): cut text; repair it")
    except json.JSONDecodeError as error:
        line, column = origin[0] + error.lineno - 1, error.colno + (origin[1] if error.lineno == 1 else 0)
        place = f"column {column}" if line == 1 else f"line {line}, column {column}"
        # Of a text that ends too early, the fault is that a string does not end, or one in its last word.
        is_cut = error.msg.startswith("Unterminated string") or error.pos >= len(text) - _LONGEST_WORD
        raise (_CutError if is_cut else InputError)(
            f"{where}: not JSON ({error.msg} at {place}); one JSON object per line is expected"
        ) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: JSON that cannot be read ({str(error)[:80]})") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: a JSON object is expected, received {type(record).__name__}")
    return record, end


def _as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: a key that it names twice: one of the values would be lost.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object names {next(name for name in names if names.count(name) > 1)!r:.40} twice")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_as_object)


def _decode(where: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(where, error) from None


def _not_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    byte = error.object[error.start]
    return InputError(f"{where}: not UTF-8 (byte 0x{byte:02x}): cannot read it; save the file as UTF-8")


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
    b"PAR1": parquet_batches,
    b"ARROW1": arrow_file_batches,
    b"\xff\xff\xff\xff": arrow_batches,
}
"""How a table is read, by the bytes that its file begins with; an Arrow stream is what `datasets` keeps on disk."""
