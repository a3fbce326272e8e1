"""The runs of a study in one file: the folders of `runs.tar.xz` are made where they are read.

    archive_runs(study)              # results/<study>/runs.tar.xz instead of runs/
    unpack(study)                    # and back; readers call it, and it does nothing where nothing is new

The records of a thousand runs say much the same, and so do their answers to the same items: together they take a tenth
of the space. Files from an archive have the oldest time that there is: one that was changed or added since has another,
and stays as it is.
"""

import lzma
import os
import shutil
import tarfile
from pathlib import Path

from studykit.errors import InputError
from studykit.files import locked, replacing

ARCHIVE = "runs.tar.xz"
_RUNS, _MARK, _LEASE = "runs", ".unpacked", ".unpacking"

_PRESET = 9 | lzma.PRESET_EXTREME
"""A dictionary of 64 MiB, in which hundreds of runs are compared; for answers a sixth smaller than without."""


def archive_runs(study: Path) -> int:
    """Replace the folders of a study's runs by its archive, the same bytes for the same content; return its bytes.

    Raises:
        InputError: the study has no runs.
    """
    unpack(study)
    files = sorted((file for file in (study / _RUNS).rglob("*") if _is_content(file)), key=_readable_last)
    if not files:
        raise InputError(f"{study} has no runs")
    with (
        replacing(study / ARCHIVE) as temporary,
        lzma.open(temporary, "wb", preset=_PRESET) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for file in files:
            member = tarfile.TarInfo(str(file.relative_to(study)))
            member.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(member, content)
    shutil.rmtree(study / _RUNS)
    return (study / ARCHIVE).stat().st_size


def unpack(study: Path) -> None:
    """Make the folders of the runs in a study's archive; what is there already, and was changed since, stays.

    Raises:
        InputError: the archive is damaged, or the disk cannot be written to.
    """
    if _is_unpacked(study):
        return
    try:
        with locked(study / _LEASE):
            if not _is_unpacked(study):
                _unpack(study)
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise InputError(
            f"{study / ARCHIVE} cannot be unpacked beside itself ({error}): copy the study to a disk that can be "
            "written to, or get the file again"
        ) from None


def _unpack(study: Path) -> None:
    folders = {study / _RUNS}
    with tarfile.open(study / ARCHIVE, "r:xz") as archive:
        for member in archive:
            place, parts = study / member.name, Path(member.name).parts
            if not member.isfile() or ".." in parts or parts[0] != _RUNS:
                raise ValueError(f"{member.name!r} is no file of a run")
            if place.exists() and place.stat().st_mtime_ns:
                continue
            content = archive.extractfile(member)
            with replacing(place, durable=False) as temporary:
                temporary.write_bytes(content.read() if content else b"")
                os.utime(temporary, (0, 0))
            folders |= {parent for parent in place.parents if parent.is_relative_to(study / _RUNS)}
    for folder in folders - {study / _RUNS}:
        os.utime(folder, (0, 0))  # as old as the files in it: nothing was added since
    (study / _RUNS / _MARK).write_text(_state(study), encoding="utf-8")


def _is_unpacked(study: Path) -> bool:
    """Whether there is no archive, or all that is in it has been unpacked."""
    try:
        return (study / _RUNS / _MARK).read_text(encoding="utf-8") == _state(study)
    except FileNotFoundError:
        return not (study / ARCHIVE).exists()


def _state(study: Path) -> str:
    """Return what changes with the archive."""
    state = (study / ARCHIVE).stat()
    return f"{state.st_size} {state.st_mtime_ns}"


def _is_content(file: Path) -> bool:
    return file.is_file() and not file.is_symlink() and not file.name.startswith(".")


def _readable_last(file: Path) -> tuple[str, bool, str]:
    """Sort by run, a record after all else: it says that the rest is complete."""
    run = next(parent.name for parent in file.parents if parent.parent.name == _RUNS)
    return run, file.name == "record.json", str(file)
