"""Files: the cache folder, atomic replacement of a file, locks, and JSON lines.

The cache is `~/.cache/studykit`, or the folder that `STUDYKIT_CACHE` names. It can be deleted at any time: an entry's
name is the hash of all it was computed from, so an entry is either right or absent.
"""

import hashlib
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from studykit.errors import InputError
from studykit.files.leases import take

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}(\.\w+)?")
"""Names of the files that `replacing` writes before it renames them."""

_LEFTOVER_S = 24 * 3600
"""No writer takes this long for one file: a temporary file of that age belongs to a process that was killed."""

_DEEPEST, _MOST_VALUES, _LARGEST = 40, 100_000, 2**63 - 1
"""Of plain data that users write: levels, values, and the largest whole number."""


def cache_folder(kind: str) -> Path:
    """Return the folder of one kind of cache, such as `"tokens"`, created if it does not exist."""
    root = os.environ.get("STUDYKIT_CACHE") or Path.home() / ".cache" / "studykit"
    folder = Path(root).expanduser() / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


MAX_WHOLE_NUMBER = 2**53
"""The largest whole number that is read; sums of a few fit a table's columns, and floats hold all of them exactly."""

_UNUSUAL_NUMBERS = (re.compile(r"[\s:\[,-][0-9]{16}"), re.compile(r"[eE]\+?[0-9]{3,}[\s,\]}]"))
"""Of a text between spaces: numbers that may be larger than `MAX_WHOLE_NUMBER`, exponents that floats may lack."""

_MAX_DEPTH = 100


def remove_leftovers(folder: Path, older_than_s: float = _LEFTOVER_S) -> None:
    """Remove the temporary files that writers left which were killed before they could rename them.

    `replacing` does so whenever it writes into the folder, for files that no living writer can still hold; who holds
    the lock of a folder, and so is its only writer, removes all of them.

    Args:
        folder: of the files.
        older_than_s: seconds since the last change of a file that is removed; 0 for all.
    """
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # its writer may rename it at any moment
            if _TEMPORARY.fullmatch(file.name) and time.time() - file.stat().st_mtime >= older_than_s:
                file.unlink()


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an error.

    File and folder are flushed to disk, so that a crash leaves the complete old or the complete new content. After an
    error in the block the old file is unchanged.

    Args:
        path: the file to replace.
        durable: without it nothing is flushed, and a crash of the machine (not of the process) may lose the new
            content: for files that are rewritten all the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        if durable:
            _flush(temporary)
        os.replace(temporary, path)
        if durable:
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON, atomically and durably."""
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lease of a folder inside the block, after the process that holds it, on whichever machine.

    Args:
        folder: nothing but the lease is in it; it is created, and stays.
    """
    while (lease := take(folder)) is None:
        time.sleep(0.2)
    with lease:
        yield


def parse_json(text: str) -> Any:
    """Return the value of a JSON text that every program reads alike.

    Raises:
        ValueError: not JSON; NaN or infinity; a whole number that a float does not hold; half of a surrogate pair; more
            than a hundred lists or objects in each other.
    """
    is_unusual = any(numbers.search(f" {text} ") for numbers in _UNUSUAL_NUMBERS)
    try:
        value = (_CHECKING_NUMBERS if is_unusual else _DECODER).decode(text)
    except RecursionError:
        raise ValueError("lists or objects nested too deeply") from None
    if text.count("[") + text.count("{") > _MAX_DEPTH:
        _check_depth(value, _MAX_DEPTH)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _whole_number(digits: str) -> int:
    number = int(digits)
    if abs(number) > MAX_WHOLE_NUMBER:
        raise ValueError(f"the number {digits[:25]} is larger than 2^53")
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:25]} is no finite number")
    return number


_DECODER = json.JSONDecoder(parse_constant=_finite)
_CHECKING_NUMBERS = json.JSONDecoder(parse_constant=_finite, parse_int=_whole_number, parse_float=_finite)
"""To check every number takes longer than to read the rest."""


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise ValueError("lists or objects nested too deeply")
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _check_depth(part, left - 1)


def read_lines(file: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the JSON objects of a file with one per line, and the number of damaged lines.

    A last line without a line break is still being written: it is neither returned nor counted. A missing file has no
    lines.
    """
    try:
        text = file.read_bytes().decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return [], 0
    complete = text[: text.rfind("\n") + 1]
    lines, damaged = [], 0
    for line in complete.split("\n")[:-1]:  # splitlines would also split at U+2028 inside a text
        try:
            lines.append(json_object(parse_json(line)))
        except ValueError:
            damaged += 1
    return lines, damaged


def json_object(value: Any) -> dict[str, Any]:
    """Return the value if it is a JSON object.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, dict):
        raise ValueError("a JSON object is expected")
    return value


_SEAL = "sha256"


def seal(plain: dict[str, Any]) -> dict[str, Any]:
    """Return JSON data with the sha256 of its content as the last key."""
    return plain | {_SEAL: _content_sha256(plain)}


def unseal(plain: dict[str, Any]) -> dict[str, Any]:
    """Return JSON data without the sha256 of its content, which files of earlier versions lack.

    Raises:
        ValueError: the content is another than was sealed.
    """
    content = {name: value for name, value in plain.items() if name != _SEAL}
    if _SEAL in plain and plain[_SEAL] != _content_sha256(content):
        raise ValueError("its content has changed since it was written")
    return content


def _content_sha256(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def check_plain(value: Any, where: str) -> None:
    """Refuse data that JSON cannot keep or no option can mean, before anything formats, copies or hashes it.

    Args:
        value: dicts, lists and scalars; values of other types are passed over.
        where: its name, for messages.

    Raises:
        InputError: naming the key of what is nested too deeply, too large, not finite, or half of a surrogate pair.

    >>> check_plain({"seed": 10**30}, "specification")
    Traceback (most recent call last):
    studykit.errors.InputError: specification: seed: a whole number of 100 bits is too large, 63 are the limit
    """
    left, count = [(value, "", 0)], 0
    while left:
        inner, path, depth = left.pop()
        count += 1
        fault = _fault(inner)
        if depth > _DEEPEST or count > _MOST_VALUES:
            fault = f"holds more than {_DEEPEST} levels" if depth > _DEEPEST else f"more than {_MOST_VALUES:,} values"
        if isinstance(inner, dict):
            faults = (_fault(key) if isinstance(key, str) else f"keys are texts, received {key!r:.40}" for key in inner)
            fault = fault or next(filter(None, faults), None)
        if fault:
            raise InputError(f"{where}: {path[1:121] or 'top level'}: {fault}: plain JSON values are expected")
        if isinstance(inner, dict):
            left += [(part, f"{path}.{key:.40}", depth + 1) for key, part in inner.items()]
        elif isinstance(inner, list | tuple):
            left += [(part, f"{path}.{index}", depth + 1) for index, part in enumerate(inner)]


def _fault(value: Any) -> str | None:
    """Return what is wrong with a scalar."""
    if isinstance(value, str) and not value.isascii():
        half = next((character for character in value if "\ud800" <= character <= "\udfff"), None)
        return half and f"half of a surrogate pair ({half!a}) in {value!r:.40}"
    if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
        return f"a whole number of {value.bit_length()} bits is too large, 63 are the limit"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no finite number"
    return None
