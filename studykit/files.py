"""Files: the cache folder, replacing a file in one step, locks, and JSON by line.

`STUDYKIT_CACHE` moves the folder (default `~/.cache/studykit`). Everything in it can be deleted at any time: a key is
the hash of what went in, so an entry is either right or absent.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def cache_folder(kind: str) -> Path:
    """Return (and create) the folder for one kind of cache, such as `"tokens"`."""
    root = os.environ.get("STUDYKIT_CACHE") or Path.home() / ".cache" / "studykit"
    folder = Path(root).expanduser() / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path` in one step.

    The file is flushed to disk, renamed over the target, and the folder is flushed too, so that after a crash the
    old content or the new one is there, whole. On an error the target stays as it was. Without `durable` a crash of
    the machine (not of the process) may lose the new content; for what is rewritten all the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
    """Put strict JSON in place, whole and durable."""
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def try_lock(path: Path) -> IO[str] | None:
    """Lock a file for this process and return it, or None where another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def is_locked(lock: Path) -> bool:
    """Whether a living process holds a lock file."""
    try:
        with lock.open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def read_lines(file: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the JSON objects of a file and the count of damaged lines.

    An unterminated last line is still being written and is left out, uncounted. A file that is not there has no lines.
    """
    if not file.exists():
        return [], 0
    text = file.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    lines, damaged = [], 0
    for line in whole.split("\n")[:-1]:  # splitlines would also split at U+2028 inside a text
        try:
            lines.append(json_object(json.loads(line)))
        except ValueError:
            damaged += 1
    return lines, damaged


def json_object(value: Any) -> dict[str, Any]:
    """Return a value that is a JSON object.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, dict):
        raise ValueError("a JSON object is expected")
    return value
