"""Where content-keyed caches live, and how a file is put in place so that nobody ever sees half of it.

`STUDYKIT_CACHE` moves the folder (default `~/.cache/studykit`). Everything in it can be deleted at any time: a key is
the hash of what went in, so an entry is either right or absent.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
