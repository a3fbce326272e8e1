"""Write run folders: specification first, record last, each file put in place whole.

    with RunWriter(study_folder, spec, ablation="data_size") as run:
        ...train, writing into run.folder...
        run.finish(cost, data)                       # from here on the run is trained
        for evaluation in spec.evaluation:
            with EvaluationWriter(run.folder, evaluation) as measured:
                measured.write_items(items)
                measured.finish(metrics)

Only one process holds a run at a time: the writer holds the folder's lease (`studykit.files.leases`) while it is open.
Another process takes it over when this one dies, for any reason.
"""

import hashlib
import json
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from studykit.errors import InputError
from studykit.files import remove_leftovers, replacing, write_json
from studykit.files.leases import Held, Lease, LeaseLost, holder, take
from studykit.results.arms import TUNING, Role, add_role
from studykit.results.cells import add_run, cell_of_kernel
from studykit.results.environment import computed_on
from studykit.results.evaluations import evaluation_folder
from studykit.results.record import EvaluationRecord, RunRecord, is_done, write_record
from studykit.results.status import STATUS, read_status
from studykit.results.tuning import TuningRecord, write_tuning
from studykit.spec import Evaluation, RunSpec

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0

Tell = Callable[[str], None]
"""Called with a line on what is being waited for."""


@contextmanager
def holding(run_folder: Path, tell: Tell = lambda line: None, *, wait: bool = True) -> Iterator[Lease]:
    """Hold a run for this process; released also when the process dies.

    Where another process holds it, this one waits. The notebook of a batch's cell does not: its worker has others.

    Args:
        run_folder: of the run.
        tell: called once a second while it waits, with a line on who holds the run and what it is doing; the first
            such line is a warning of the log, too.
        wait: for another process that holds the run.

    Raises:
        Held: another process holds the run, and this one does not wait.
    """
    with _take(run_folder, tell, wait) as lease:
        try:
            yield lease
        finally:
            if is_done(run_folder):  # an unfinished run keeps its own, which says how far it was
                (run_folder / STATUS).unlink(missing_ok=True)


@dataclass(frozen=True)
class Purpose:
    """Why a run is trained; no part of its identity.

    Attributes:
        ablation: the question that it belongs to.
        arm: its name in the comparison.
        trial_of: id of the tuning that it is a trial of.
        tuning: how its settings were chosen; None where they were given by hand.
        wait: whether to wait for another process that holds it.
    """

    ablation: str = ""
    arm: str = ""
    trial_of: str | None = None
    tuning: TuningRecord | None = None
    wait: bool = True

    @property
    def role(self) -> Role:
        """The run's part in the comparison, as the study keeps it."""
        tuning = self.trial_of if self.tuning is None else self.tuning.tuning
        return Role(self.arm, tuning, self.trial_of is not None)


def _take(run_folder: Path, tell: Tell, wait: bool) -> Lease:
    warned = False
    while (lease := take(run_folder)) is None:
        line = _waiting(run_folder)
        if not wait or cell_of_kernel():
            raise Held(line)
        if not warned:
            _LOG.warning(line)
        warned = True
        tell(line)
        time.sleep(_LOOK_EVERY_S)  # without a limit: the lease of a holder that dies is taken over
    return lease


def _waiting(run_folder: Path) -> str:
    status, other = read_status(run_folder), holder(run_folder)
    by = "another process"
    if other is not None:
        by = f"{other}, since {other.since.replace('T', ' ').removesuffix('+00:00')} UTC"
    return f"waiting for run {run_folder.name}, held by {by}{'' if status is None else f': {status.line()}'}"


class RunWriter:
    """The one writer of a run's folder; a context manager that records a failure.

    The evaluations of the specification are announced at once, so that tables show what is still to come.

    Args:
        study_folder: from `open_study`.
        spec: the pinned specification.
        purpose: what the run is wanted for; or single fields of it.
        tell: called with a line while another process holds the run, see `holding`.
    """

    def __init__(
        self,
        study_folder: Path,
        spec: RunSpec,
        purpose: Purpose | None = None,
        *,
        tell: Callable[[str], None] = lambda line: None,
        **fields: Any,
    ):
        self.spec, self.purpose, self._tell = spec, replace(purpose or Purpose(), **fields), tell
        self.study_folder = study_folder
        self.folder = study_folder / "runs" / spec.run_id
        self._held = ExitStack()
        self._started = _now()

    @property
    def is_done(self) -> bool:
        """Whether the run is trained."""
        return is_done(self.folder)

    def __enter__(self) -> Self:
        if self.purpose.wait:  # before the run is held: the last one that a cell names is what it waits for
            self._add_to_cell()
        self.lease = self._held.enter_context(holding(self.folder, self._tell, wait=self.purpose.wait))
        self._add_to_cell()
        add_role(self.study_folder, self.spec.run_id, self.purpose.role)
        remove_leftovers(self.folder, older_than_s=0)
        if self.is_done:
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)  # of a process killed after its record
        else:
            (self.folder / "record.json").unlink(missing_ok=True)  # a failed attempt is tried again
            write_json(self.folder / "spec.json", self.spec.training.plain())
        if self.purpose.tuning is not None:
            write_tuning(self.folder, self.purpose.tuning)
        for evaluation in self.spec.evaluation:
            announce(self.folder, evaluation)
        return self

    def _add_to_cell(self) -> None:
        if cell := cell_of_kernel():
            add_run(cell, self.spec.run_id, self.spec.evaluation[0].eval_id if self.spec.evaluation else None)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._held:
            if isinstance(error, LeaseLost) or self.is_done:
                return
            if isinstance(error, InputError) and not (self.folder / "checkpoints").exists():
                shutil.rmtree(self.folder, ignore_errors=True)  # wrong input leaves no run
            elif isinstance(error, Exception):
                with suppress(LeaseLost):
                    self._record("failed", error=one_line(error))

    def finish(
        self, cost: dict[str, float], data: list[dict[str, Any]], *, gpu: str | None = None, **more: Any
    ) -> None:
        """Write the record: the run is trained, and its weights are those of the folder.

        Args:
            cost: tokens, seconds and memory.
            data: one manifest per stage.
            gpu: model name of the GPU that computed.
            more: other fields of `RunRecord`.

        Raises:
            LeaseLost: another process has taken the run over; nothing is written.
        """
        self._record("done", gpu, cost=cost, data=data, **more)

    def _record(
        self, status: Literal["done", "failed"], gpu: str | None = None, processes: int = 1, **fields: Any
    ) -> None:
        self.lease.renew()
        (self.folder / STATUS).unlink(missing_ok=True)
        record = RunRecord(
            run_id=self.spec.run_id,
            status=status,
            ablation=TUNING if self.purpose.trial_of else self.purpose.ablation,
            arm=self.purpose.arm,
            started=self._started,
            finished=_now(),
            spec=self.spec.training,
            environment=computed_on(gpu, processes),
            files=_hashes(self.folder),
            **fields,
        )
        write_record(self.folder, record)


class EvaluationWriter:
    """The writer of one evaluation of a run, whose folder this process holds; a context manager.

    A failure is recorded; wrong input leaves no evaluation.

    Args:
        run_folder: of the trained run.
        evaluation: the pinned evaluation.
    """

    def __init__(self, run_folder: Path, evaluation: Evaluation):
        self.evaluation = evaluation
        self.run_id = run_folder.name
        self.folder = evaluation_folder(run_folder, evaluation.eval_id)
        self._started = ""

    @property
    def is_done(self) -> bool:
        """Whether it has been measured."""
        return is_done(self.folder)

    def __enter__(self) -> Self:
        self._started = _now("microseconds")  # by which the evaluations of a run are ordered
        if not self.is_done:
            (self.folder / "record.json").unlink(missing_ok=True)
            announce(self.folder.parents[1], self.evaluation)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, InputError) and not self.is_done:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif isinstance(error, Exception) and not isinstance(error, LeaseLost) and not self.is_done:
            self._record("failed", error=one_line(error))

    def write_items(self, lines: Iterable[dict[str, Any]]) -> None:
        """Put `items.jsonl` in place, one JSON object per held-out item."""
        with replacing(self.folder / "items.jsonl") as temporary, temporary.open("w", encoding="utf-8") as stream:
            for line in lines:
                stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    def finish(
        self,
        metrics: dict[str, float],
        *,
        cost: dict[str, float] | None = None,
        gpu: str | None = None,
        **more: Any,
    ) -> None:
        """Write the record; nothing is written to the folder after it.

        Args:
            metrics: the student's scores on the held-out items.
            cost: seconds.
            gpu: model name of the GPU that computed.
            more: other fields of `EvaluationRecord`.
        """
        self._record("done", gpu, metrics=metrics, cost=cost or {}, **more)

    def _record(
        self, status: Literal["done", "failed"], gpu: str | None = None, processes: int = 1, **fields: Any
    ) -> None:
        record = EvaluationRecord(
            run_id=self.run_id,
            eval_id=self.evaluation.eval_id,
            status=status,
            started=self._started,
            finished=_now(),
            evaluation=self.evaluation,
            environment=computed_on(gpu, processes),
            files=_hashes(self.folder),
            **fields,
        )
        write_record(self.folder, record)


def announce(run_folder: Path, evaluation: Evaluation) -> None:
    """Put `evaluation.json` in place where it is not there yet: what is, or will be, measured."""
    file = evaluation_folder(run_folder, evaluation.eval_id) / "evaluation.json"
    if not file.exists():
        write_json(file, evaluation.model_dump(mode="json", exclude_none=True))


def one_line(error: Exception) -> str:
    """Return kind and message of an error."""
    return "".join(traceback.format_exception_only(error)).strip()


def _hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of what a record vouches for, by path: its folder's files, weights included.

    The card beside the weights is left out: it is written again with every evaluation.
    """
    own = [file for file in folder.glob("[!.]*.json*") if file.name != "record.json"]
    weights = [file for part in ("model", "adapter") for file in (folder / part).rglob("*") if file.is_file()]
    files = sorted(own + [file for file in weights if file.name != "README.md"])
    return {file.relative_to(folder).as_posix(): _sha256(file) for file in files}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _now(timespec: str = "seconds") -> str:
    return datetime.now(UTC).isoformat(timespec=timespec)
