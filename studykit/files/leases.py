"""Leases: which process works in a folder, where several machines share it. Torch-free.

    with take(folder) as lease:          # `take` returns None while another process holds the folder
        lease.check()                    # raises LeaseLost once another process holds it
    holder(folder)                       # who holds it, since when, and when it was last renewed

A lease is a file `lease-N` in the folder with host, process and start. Its heartbeat is its modification time, which a
thread sets to the file server's time. Locks of the system (`flock`) do not reach from host to host; what is used here
does, also on NFS: exclusive creation, removal, and times that the server sets.

- The largest N counts. It is free if its file reads `free`, and stale if its process is gone (seen on the same machine)
  or has not renewed it for `GRACE` times its duration, by the server's clock: clocks of hosts are never compared.
- To take a folder is to create N + 1 exclusively, which one process can; then it removes what is lower, and begins.
- A file with the largest N is never removed, so that no number comes back, and an old view of a folder takes nothing.
- A holder that was stopped for longer than its lease renews it by the same step: it creates N + 1, or learns that
  another process has. So two processes never hold a folder, as long as their clocks run equally fast within `GRACE`.
"""

import errno
import json
import os
import re
import socket
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from studykit.errors import Failure, InputError
from studykit.files.machine import engine, machine_id, process_state

SECONDS = "STUDYKIT_LEASE_S"
"""The environment variable that sets how long a lease lasts without being renewed."""

GRACE = 1.25
"""How much longer than a lease lasts for its holder others wait before they take it over."""

_DEFAULT_S = 60.0
_RENEWALS = 12
"""In the duration of a lease."""

_NAME = re.compile(r"lease-(\d+)")
_FREE = "free\n"
_CLOCK_AGE_S = 300.0
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine sleeps, where the system has such a clock."""


class Held(Failure):
    """Another process works in the folder."""


class LeaseLost(Failure):
    """This process has been stopped for longer than its lease, and another one goes on with its work."""


@dataclass(frozen=True)
class Holder:
    """Who holds a folder.

    Attributes:
        host: name of the machine.
        machine: its identity, with that of the container, in which `pid` counts.
        pid: of the process.
        began: when that process began, in the machine's own count.
        token: 12 hex digits of this lease.
        since: when it was taken: UTC, ISO 8601.
        lease_s: seconds that it lasts without being renewed.
        engine: that started the process: `slurm`, `ray`, or "" for neither.
        file: of the lease; None before it is written.
        renewed: when it was renewed, by the file server's clock.
    """

    host: str
    machine: str
    pid: int
    began: str
    token: str
    since: str
    lease_s: float
    engine: str = ""
    file: Path | None = None
    renewed: float = 0.0

    @property
    def age_s(self) -> float:
        """Seconds since it was renewed."""
        return 0.0 if self.file is None else max(0.0, _server_time(self.file.parent) - self.renewed)

    @property
    def is_alive(self) -> bool:
        """Whether it holds the folder: on this machine as long as it runs, elsewhere as long as it is renewed."""
        if self.machine == machine_id():
            state, began = process_state(self.pid)
            if state == "gone" or began not in ("", self.began):
                return False
            if state == "running":
                return True
        return self.age_s <= GRACE * self.lease_s

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """A folder that this process holds; a context manager, which gives it back. `take` makes it.

    Args:
        folder: what is held.
        number: of the file.
        holder: this process.
        renewed: when it began to make the file, by its clock.
    """

    def __init__(self, folder: Path, number: int, holder: Holder, renewed: float):
        self.folder, self.token = folder, holder.token
        self._number, self._holder, self._renewed = number, holder, renewed
        self._is_lost = False
        self._guard, self._over = threading.Lock(), threading.Event()
        threading.Thread(target=self._keep, daemon=True, name=f"lease of {folder.name}").start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    @property
    def is_lost(self) -> bool:
        """Whether another process holds the folder, as far as this one has noticed."""
        return self._is_lost

    def check(self) -> None:
        """Make sure of the lease; nothing is read or written as long as it was renewed lately.

        Raises:
            LeaseLost: another process holds the folder.
        """
        if self._is_lost or time.clock_gettime(_CLOCK) - self._renewed > self._holder.lease_s / 2:
            self.renew()

    def renew(self) -> None:
        """Renew it now: before anything is written that ends the work in the folder.

        Raises:
            LeaseLost: another process holds the folder.
        """
        with self._guard:
            now = time.clock_gettime(_CLOCK)
            if not self._is_lost and not self._renewed_in_time(now):
                self._is_lost = not self._take_again()
            if self._is_lost:
                other = None
                with suppress(OSError):  # the server may be the reason
                    other = holder(self.folder)
                raise LeaseLost(
                    f"{self.folder.name} was taken over by {other or 'another process'}, since this one "
                    f"was stopped for longer than its lease of {self._holder.lease_s:g} s: the work goes on there"
                )
            self._renewed = now

    def release(self) -> None:
        """Give the folder back; where the file server does not answer, the lease ends by itself."""
        self._over.set()
        with self._guard:
            if not self._is_lost:
                with suppress(OSError), open(os.open(self._file, os.O_WRONLY | os.O_TRUNC), "w") as stream:
                    stream.write(_FREE)
            self._is_lost = True

    @property
    def _file(self) -> Path:
        return self.folder / f"lease-{self._number}"

    def _renewed_in_time(self, now: float) -> bool:
        if now - self._renewed > self._holder.lease_s:
            return False
        try:
            os.utime(self._file)
        except OSError as error:  # a server that does not answer for a while leaves the lease as it is
            return error.errno not in (errno.ENOENT, errno.ESTALE)
        return True

    def _take_again(self) -> bool:
        try:
            is_mine = self._file.exists() and _create(self.folder, self._number + 1, self._holder)
        except OSError:
            return False
        self._number += is_mine
        return is_mine

    def _keep(self) -> None:
        while not self._over.wait(self._holder.lease_s / _RENEWALS):
            try:
                self.renew()
            except LeaseLost:
                return


def take(folder: Path) -> Lease | None:
    """Hold a folder for this process, at about five file operations; None if another process holds it.

    What was read of the folder before may be old, on NFS by a minute: creating the file makes this host look again, so
    read whether there is still work to do afterwards.
    """
    newest, now = max(_numbers(folder)), time.clock_gettime(_CLOCK)
    if not _is_free(folder, newest):
        return None
    if not newest:
        folder.mkdir(parents=True, exist_ok=True)
    mine = Holder(
        host=socket.gethostname(),
        machine=machine_id(),
        pid=os.getpid(),
        began=process_state(os.getpid())[1],
        token=uuid.uuid4().hex[:12],
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        lease_s=_lease_s(),
        engine=engine(),
    )
    return Lease(folder, newest + 1, mine, now) if _create(folder, newest + 1, mine) else None


def holder(folder: Path) -> Holder | None:
    """Return who holds a folder; None where it is free, or its holder is gone."""
    found = _read(folder, max(_numbers(folder)))
    return found if isinstance(found, Holder) and found.is_alive else None


def is_held(folder: Path) -> bool:
    """Whether a process works in a folder."""
    return not _is_free(folder, max(_numbers(folder)))


def is_held_by(folder: Path, token: str) -> bool:
    """Whether the lease with this token is the folder's: for a process that works for the holder."""
    found = _read(folder, max(_numbers(folder)))
    return isinstance(found, Holder) and found.token == token


def _lease_s() -> float:
    text = os.environ.get(SECONDS, str(_DEFAULT_S))
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not float(text):
        raise InputError(f"{SECONDS}={text!r}: write a number of seconds above 0")
    return float(text)


def _numbers(folder: Path) -> list[int]:
    """Return the numbers of a folder's files, and 0."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        names = []
    return [0, *(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))]


def _is_free(folder: Path, number: int) -> bool:
    found = _read(folder, number) if number else "free"
    return found == "free" or (isinstance(found, Holder) and not found.is_alive)


def _read(folder: Path, number: int) -> Holder | str | None:
    """Return the holder in a lease, `free`, or None for one that has just been replaced or is being written.

    A file that was never written, since its process was killed, is free once it has its age.
    """
    file = folder / f"lease-{number}"
    try:
        with file.open(encoding="utf-8") as stream:  # to open a file on NFS is to read its time anew
            text, renewed = stream.read(), os.fstat(stream.fileno()).st_mtime
    except OSError:
        return None
    if text == _FREE:
        return "free"
    try:
        return Holder(**json.loads(text), file=file, renewed=renewed)
    except (ValueError, TypeError):
        return "free" if _server_time(folder) - renewed > GRACE * _DEFAULT_S else None


def _create(folder: Path, number: int, holder: Holder) -> bool:
    """Create a lease that is now the folder's largest, and remove those below; False if another process was faster."""
    file = folder / f"lease-{number}"
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        plain = {name: value for name, value in asdict(holder).items() if name not in ("file", "renewed")}
        stream.write(json.dumps(plain) + "\n")
    numbers = _numbers(folder)
    if max(numbers) > number:  # this host's view of the folder was old
        file.unlink(missing_ok=True)
        return False
    for lower in numbers:
        if 0 < lower < number:
            (folder / f"lease-{lower}").unlink(missing_ok=True)
    return True


_clocks: dict[int, tuple[float, float]] = {}
"""By device: the server's time minus this machine's clock, and when that was measured."""


def _server_time(folder: Path) -> float:
    """Return the time of the file server; this machine's where the folder cannot be written."""
    device, now = os.stat(folder).st_dev, time.clock_gettime(_CLOCK)
    if device not in _clocks or now - _clocks[device][1] > _CLOCK_AGE_S:
        try:
            with tempfile.TemporaryFile(prefix=".clock.", dir=folder) as probe:
                offset = os.fstat(probe.fileno()).st_mtime - now
        except OSError:
            return time.time()
        _clocks[device] = offset, now
    return now + _clocks[device][0]
