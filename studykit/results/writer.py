"""Write run folders: specification first, record last, each file put in place whole.

    with RunWriter(study_folder, spec, ablation="data_size") as run:
        ...train, writing into run.folder...
        run.write_items(items, scores)
        run.finish(metrics, cost, data)

Only one process holds a run at a time: the folder's `lock` file is locked for as long as the writer is open, and the
system lets go of it when the process dies, however it dies.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pandas as pd

from studykit.errors import InputError
from studykit.files import is_locked, read_lines, replacing, try_lock, write_json
from studykit.spec import Lora, Part, RunSpec, Stage
from studykit.scorers import SCORERS
from studykit.results.record import SCHEMA


_PACKAGES = ("studykit", "torch", "transformers", "accelerate", "peft", "datasets", "numpy")


class RunWriter:
    """The one writer of a run's folder; a context manager that records failure by itself.

    Args:
        study_folder: from `open_study`.
        spec: the pinned specification.
        ablation: which question asked for the run.
    """

    def __init__(self, study_folder: Path, spec: RunSpec, *, ablation: str = ""):
        self.spec, self.ablation = spec, ablation
        self.folder = study_folder / "runs" / spec.run_id
        self._lock: IO[str] | None = None
        self._started = _now()

    @property
    def is_done(self) -> bool:
        """Whether a finished record is there."""
        try:
            return json.loads((self.folder / "record.json").read_text(encoding="utf-8"))["status"] == "done"
        except (OSError, ValueError, KeyError):
            return False

    def __enter__(self) -> Self:
        while (lock := try_lock(self.folder / "lock")) is None:
            time.sleep(0.5)  # however long it trains: the system takes the lock from a holder that dies
        self._lock = lock
        if not self.is_done:
            (self.folder / "record.json").unlink(missing_ok=True)  # a failed attempt is tried again
            write_json(self.folder / "spec.json", json.loads(self.spec.canonical()))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, InputError) and not self.is_done and not (self.folder / "checkpoints").exists():
            shutil.rmtree(self.folder, ignore_errors=True)  # wrong input leaves nothing behind
        elif isinstance(error, Exception) and not self.is_done:
            text = "".join(traceback.format_exception_only(error)).strip()
            self._record("failed", error=text)
        if self._lock is not None:
            self._lock.close()

    def write_items(self, lines: Iterable[dict[str, Any]]) -> None:
        """Put `items.jsonl` in place, one JSON object per held-out item."""
        with replacing(self.folder / "items.jsonl") as temporary, temporary.open("w", encoding="utf-8") as stream:
            for line in lines:
                stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    def finish(
        self, metrics: dict[str, float], cost: dict[str, float], data: list[dict[str, Any]], **more: Any
    ) -> None:
        """Write the final record; nothing is written to the folder after it."""
        self._record("done", metrics=metrics, cost=cost, data=data, **more)

    def _record(self, status: str, **content: Any) -> None:
        files = sorted(f for f in self.folder.glob("*.json*") if f.name != "record.json" and not f.name.startswith("."))
        record = {
            "schema": SCHEMA,
            "run_id": self.spec.run_id,
            "status": status,
            "ablation": self.ablation,
            "started": self._started,
            "finished": _now(),
            "spec": json.loads(self.spec.canonical()),
            **content,
            "environment": environment(),
            "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        }
        write_json(self.folder / "record.json", record)


@cache
def environment() -> dict[str, Any]:
    """Return what the numbers depend on besides the specification: versions, machine, revision; no names or paths."""
    packages = {}
    for package in _PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "packages": packages,
        "git_revision": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "studykit", "notebooks")),
    }


def _git(*arguments: str) -> str | None:
    """Ask git about the checkout this code runs from; None outside one."""
    place = Path(__file__).parents[2]
    try:
        done = subprocess.run(["git", "-C", str(place), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
