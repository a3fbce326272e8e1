"""The examples of a source's files, indexed on disk once under the content of the files, and read from there.

    examples, sha256 = open_pool("jsonl", "train", {"path": "data/train.jsonl"}, files)

    <cache>/pools/<key>.arrow        one row per example: id, source, annotator, ..., and its texts
    <cache>/pools/<key>.json         content hash, checksum, and what the source has logged

The key covers the content of the files, the source's options and the code of all sources. A second process that needs
the same index waits for the first one.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studykit.data import tables
from studykit.data.stored import SCHEMA, StoredExamples, to_batches
from studykit.errors import InputError
from studykit.files import cache_folder, locked
from studykit.models.file_hashes import file_sha256
from studykit.sources import SOURCES, Example, hashed_content, read_examples

_VERSION = 1
_IN_MEMORY_BYTES = 2**26
"""Examples of a smaller index are all read at once: each is looked at many times, and they need little memory."""

_LOG = logging.getLogger(__name__)


def open_pool(source: str, split: str, options: dict[str, Any], files: Sequence[Path]) -> tuple[Sequence[Example], str]:
    """Return the examples of a source, and their content hash; the files are read where they have no index yet.

    Args:
        source: by name.
        split: of the source, or several, joined with `+`.
        options: of the source.
        files: those that it reads.

    Raises:
        InputError: an unusable file, or a split without examples.
    """
    hashes = _hash_files(files)
    content = [_VERSION, source, split, options, hashes, _code()]
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    file = cache_folder("pools") / f"{key}.arrow"
    found = tables.read(file)
    if found is not None:
        for note in found.facts["notes"]:
            _LOG.warning("%s", note)
    else:
        with locked(file.with_suffix(".lease")):
            found = tables.read(file)
            if found is None:
                _index(file, read_examples(source, split, options))
                if _hash_files(files) != hashes:
                    raise InputError(f"{', '.join(map(str, files))}: changed while it was read: start again")
                found = tables.read(file)
    if found is None:
        raise OSError(f"{file} was written and cannot be read: is the disk full or failing?")
    stored = StoredExamples(file, found)
    is_small = found.table.nbytes < _IN_MEMORY_BYTES
    return (list(stored) if is_small else stored), found.facts["examples_sha256"]


def _hash_files(files: Sequence[Path]) -> list[str]:
    try:
        return [file_sha256(file) for file in files]
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error}") from None


def _code() -> str:
    """Return the hash of the code that reads files, docstrings included: another code costs another index, no more."""
    digest = hashlib.sha256()
    for file in sorted(SOURCES.folder.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _index(file: Path, examples: Iterator[Example]) -> None:
    """Read all examples once, and write them with their content hash."""
    digest = hashlib.sha256()
    facts: dict[str, Any] = {}

    def hashing() -> Iterator[Example]:
        for example in examples:
            digest.update(hashed_content(example))
            yield example
        facts.update(examples_sha256=digest.hexdigest(), notes=notes)

    with _collecting_notes() as notes:
        tables.write(file, SCHEMA, to_batches(hashing()), facts)


@contextmanager
def _collecting_notes() -> Iterator[list[str]]:
    """Yield a list that gets the messages which sources log inside the block."""
    notes: list[str] = []
    handler, logger = logging.Handler(logging.WARNING), logging.getLogger(SOURCES.package)
    handler.emit = lambda record: notes.append(record.getMessage())
    logger.addHandler(handler)
    try:
        yield notes
    finally:
        logger.removeHandler(handler)
