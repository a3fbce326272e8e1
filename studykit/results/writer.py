"""Write run folders: specification first, record last, each file put in place whole.

    with RunWriter(study_folder, spec, ablation="data_size") as run:
        ...train, writing into run.folder...
        run.write_items(items)
        run.finish(metrics, cost, data)

Only one process holds a run at a time: the folder's `lock` file is locked as long as the writer is open, and the system
releases it when the process dies, for any reason.
"""

import hashlib
import json
import shutil
import time
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from studykit.errors import InputError
from studykit.files import replacing, try_lock, write_json
from studykit.results.cells import add_run, cell_of_kernel
from studykit.results.environment import environment
from studykit.results.record import RunRecord, is_done, write_record
from studykit.results.status import STATUS
from studykit.spec import RunSpec


class RunWriter:
    """The one writer of a run's folder; a context manager that records a failure.

    Args:
        study_folder: from `open_study`.
        spec: the pinned specification.
        ablation: the question that the run is trained for.
    """

    def __init__(self, study_folder: Path, spec: RunSpec, *, ablation: str = ""):
        self.spec, self.ablation = spec, ablation
        self.folder = study_folder / "runs" / spec.run_id
        self._lock: IO[str] | None = None
        self._started = _now()

    @property
    def is_done(self) -> bool:
        """Whether the run is finished."""
        return is_done(self.folder)

    def __enter__(self) -> Self:
        while (lock := try_lock(self.folder / "lock")) is None:
            time.sleep(0.5)  # without a limit: the system releases the lock of a holder that dies
        self._lock = lock
        if cell := cell_of_kernel():
            add_run(cell, self.spec.run_id)
        if not self.is_done:
            (self.folder / "record.json").unlink(missing_ok=True)  # a failed attempt is tried again
            write_json(self.folder / "spec.json", json.loads(self.spec.canonical()))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, InputError) and not self.is_done and not (self.folder / "checkpoints").exists():
            shutil.rmtree(self.folder, ignore_errors=True)  # wrong input leaves no run
        elif isinstance(error, Exception) and not self.is_done:
            self._record("failed", error="".join(traceback.format_exception_only(error)).strip())
        if self._lock is not None:
            self._lock.close()

    def write_items(self, lines: Iterable[dict[str, Any]]) -> None:
        """Put `items.jsonl` in place, one JSON object per held-out item."""
        with replacing(self.folder / "items.jsonl") as temporary, temporary.open("w", encoding="utf-8") as stream:
            for line in lines:
                stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    def finish(
        self,
        metrics: dict[str, float],
        cost: dict[str, float],
        data: list[dict[str, Any]],
        *,
        gpu: str | None = None,
        **more: Any,
    ) -> None:
        """Write the record; nothing is written to the folder after it.

        Args:
            metrics: the student's scores on the held-out items.
            cost: tokens, seconds and memory.
            data: one manifest per stage.
            gpu: model name of the GPU that computed.
            more: other fields of `RunRecord`.
        """
        self._record("done", gpu, metrics=metrics, cost=cost, data=data, **more)

    def _record(self, status: Literal["done", "failed"], gpu: str | None = None, **fields: Any) -> None:
        (self.folder / STATUS).unlink(missing_ok=True)
        files = sorted(f for f in self.folder.glob("*.json*") if f.name != "record.json" and not f.name.startswith("."))
        record = RunRecord(
            run_id=self.spec.run_id,
            status=status,
            ablation=self.ablation,
            started=self._started,
            finished=_now(),
            spec=self.spec,
            environment=environment().model_copy(update={"gpu": gpu}),
            files={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
            **fields,
        )
        write_record(self.folder, record)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
