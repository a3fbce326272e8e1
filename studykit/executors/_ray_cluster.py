"""Connect to a Ray cluster, or say in one line why not: Ray tries a dead address for minutes, and prints warnings."""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import psutil

from studykit.errors import InputError, one_line

_REACHED_WITHIN_S = 5.0
_START = "start one with `ray start --head`"
_TOKEN = "RAY_AUTH_TOKEN, or the file that RAY_AUTH_TOKEN_PATH names"


def import_ray() -> Any:
    """Return Ray.

    Raises:
        InputError: it is not installed.
    """
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")  # of 40 s each; 20 by default, where the cluster is gone
    try:
        return import_module("ray")
    except ImportError:
        raise InputError("executor 'ray': Ray is not installed: pip install 'studykit[ray]'") from None


def connect(address: str) -> Any:
    """Return Ray, connected to the cluster at an address; `auto` is the one that RAY_ADDRESS or this machine names.

    Raises:
        InputError: no Ray, no cluster there, or one that refuses the token of this process.
    """
    named = (os.environ.get("RAY_ADDRESS") if address == "auto" else "") or address
    if named == "local":
        raise InputError(f"executor 'ray': address 'local' is no cluster: {_START}, or leave out --executor ray")
    _reach(named)  # before Ray is imported, which takes seconds
    ray = import_ray()
    with _kept_from_the_terminal() as said:
        try:
            ray.init(address=named, log_to_driver=False, ignore_reinit_error=True, logging_level="error")
        except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            said.seek(0)
            raise InputError(f"executor 'ray': {_reason(named, error, said.read())}") from None
    return ray


def _reason(address: str, error: Exception, said: str) -> str:
    if "InvalidAuthToken" in said:
        has = "not this one" if os.environ.get("RAY_AUTH_MODE") == "token" else "there is none here"
        return f"the cluster at {address!r} demands a token, and {has}: set RAY_AUTH_MODE=token and {_TOKEN}"
    if "RAY_AUTH_TOKEN" in str(error):
        return f"RAY_AUTH_MODE is 'token', and there is none here: set {_TOKEN}"
    return f"no cluster at {address!r}: {one_line(error).rstrip('.')}: {_START}"


def _reach(address: str) -> None:
    """Refuse an address with host and port at which nothing answers, and the one that a cluster which is gone has left.

    Raises:
        InputError: which one it is.
    """
    file = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
    is_found = address == "auto" and file.is_file()
    named = file.read_text().strip() if is_found else address
    host, _, port = named.rpartition("://")[2].rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHED_WITHIN_S).close()
    except OSError as error:
        fault = f"no cluster at {named!r}: {one_line(error).rstrip('.')}: {_START}"
        if is_found:
            fault = f"{file} is stale: {fault}, or name another one by -o address=HOST:PORT"
        if not (is_found and _runs_here()):
            raise InputError(f"executor 'ray': {fault}") from None


def _runs_here() -> bool:
    """Whether this machine is a node of some cluster, which Ray then takes instead of what the file names."""
    return any(process.info["name"] == "raylet" for process in psutil.process_iter(["name"]))


@contextmanager
def _kept_from_the_terminal() -> Iterator[IO[str]]:
    """Let stderr, also of what is not Python, go to a file; it is shown only after an error of another kind."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        os.dup2(said.fileno(), 2)
        try:
            yield said
        except InputError:
            raise
        except BaseException:
            said.seek(0)
            os.write(terminal, said.read().encode())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
