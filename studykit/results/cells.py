"""The cells of batches: what each executes, its status, its runs, its executed notebook and its log.

    write_cell(folder, CellSpec(...))                     # the batch, before it starts the cell
    start_cell(folder)                                    # the process that executes the notebook
    start_kernel(..., kernel_arguments(folder))           # every `RunWriter` opened in this kernel is a run of the cell
    finish_cell(folder, "done", wall_s=12.5)              # writes record.json last, with the ids of the runs

A kernel learns its cell as it learns everything else: from its configuration, in a separate section.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from studykit.errors import InputError
from studykit.files import json_object, read_lines, write_json
from studykit.files.leases import is_held
from studykit.results.archive import unpack
from studykit.results.arms import TUNING
from studykit.results.record import CellRecord, CellSpec, Hypothesis, read_record, read_typed, write_record

_SECTION = "StudyCell"
"""Of a kernel's configuration; its `folder` is the cell's."""
_LEDGER = "runs.jsonl"
_FIRST_VERSION: dict[str, Any] = {"schema": 1}


@dataclass(frozen=True)
class CellState:
    """One cell of a study.

    Attributes:
        folder: its folder, named by its id.
        spec: what it executes; None where `cell.json` is damaged.
        status: `done`, `failed`, `running` or `stale`.
        runs: ids of its runs, also while it is running.
        evaluations: ids of the evaluations that it shows of them.
        wall_s: seconds of the execution, once it is over.
        error: what failed, or what is damaged.
    """

    folder: Path
    spec: CellSpec | None
    status: str
    runs: tuple[str, ...] = ()
    evaluations: tuple[str, ...] = ()
    wall_s: float | None = None
    error: str | None = None

    @property
    def cell_id(self) -> str:
        """Return the name of the folder."""
        return self.folder.name


def write_cell(folder: Path, spec: CellSpec) -> None:
    """Write `cell.json`.

    A hypothesis keeps the earliest time at which a cell of this notebook in the study had the same text, also when the
    notebook's code changes, which makes another cell of it.
    """
    if spec.hypothesis:
        known = (spec.hypothesis, *_hypotheses(folder.parent, spec.notebook))
        same = [one for one in known if one.sha256 == spec.hypothesis.sha256]
        spec = spec.model_copy(update={"hypothesis": min(same, key=lambda one: datetime.fromisoformat(one.written))})
    write_json(folder / "cell.json", spec.to_json() | {"parameters": spec.parameters})


def read_cell_spec(folder: Path) -> CellSpec:
    """Return what a cell executes.

    Raises:
        InputError: no `cell.json`, or a damaged one.
    """
    spec = read_typed(folder / "cell.json", CellSpec, _FIRST_VERSION)
    if spec is None:
        raise InputError(f"{folder} is no cell of a batch: it has no cell.json")
    return spec


@dataclass(frozen=True)
class HypothesisTime:
    """When a cell's hypothesis was written, by the runs that had started before.

    Attributes:
        runs: number of the cell's runs.
        own: number of those that started before, and were trained for the question of the cell's notebook.
        shared: number of those that started before, and were trained for another question; their scores could be seen.
    """

    runs: int
    own: int
    shared: int

    def __str__(self) -> str:
        """Return the same in words.

        >>> print(HypothesisTime(22, 0, 2), HypothesisTime(2, 0, 0), HypothesisTime(6, 3, 1), sep=" | ")
        before 20 of 22 runs; 2 are shared with earlier studies | before all 2 runs | after 3 of 6 runs; 1 more is ...
        """
        if self.own:
            more = f" more {_are(self.shared)} shared with earlier studies"
            return f"after {self.own} of {self.runs} runs" + (f"; {self.shared}{more}" if self.shared else "")
        if self.shared:
            before = f"before {self.runs - self.shared} of {self.runs} runs"
            return f"{before}; {self.shared} {_are(self.shared)} shared with earlier studies"
        return f"before all {self.runs} runs" if self.runs > 1 else "before the run"


def hypothesis_time(cell: CellState) -> HypothesisTime | None:
    """Return before which of a cell's runs its hypothesis was written; None where that is not known.

    Trials of a tuning, which cells of other seeds share, do not count: they are scored on validation items.
    """
    if cell.spec is None or cell.spec.hypothesis is None:
        return None
    records = [read_record(cell.folder.parents[1] / "runs" / run) for run in cell.runs]
    reported = [record for record in records if record is not None and record.ablation != TUNING]
    if not reported:
        return None
    written, question = datetime.fromisoformat(cell.spec.hypothesis.written), cell.spec.notebook.partition("_")[2]
    older = [record for record in reported if datetime.fromisoformat(record.started) < written]
    shared = sum(bool(record.ablation) and record.ablation != question for record in older)
    return HypothesisTime(len(reported), len(older) - shared, shared)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _hypotheses(cells: Path, notebook: str) -> Iterator[Hypothesis]:
    """Yield the hypotheses of a notebook's cells; a damaged cell is passed over."""
    for file in cells.glob("*/cell.json"):
        with suppress(InputError):
            spec = read_typed(file, CellSpec, _FIRST_VERSION)
            if spec and spec.hypothesis and spec.notebook == notebook:
                yield spec.hypothesis


def start_cell(folder: Path) -> None:
    """Remove what an earlier execution of the cell left."""
    for name in ("record.json", _LEDGER):
        (folder / name).unlink(missing_ok=True)


def kernel_arguments(folder: Path) -> list[str]:
    """Return the command-line arguments that tell an IPython kernel whose runs it opens."""
    return [f"--{_SECTION}.folder={folder.resolve()}"]


def cell_of_kernel() -> Path | None:
    """Return the folder of the cell whose notebook this process executes; None outside a batch."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    folder = shell and shell.config.get(_SECTION, {}).get("folder")
    return Path(folder) if folder else None


def add_run(folder: Path, run_id: str, eval_id: str | None = None) -> None:
    """Count a run, and the evaluation that is shown of it, as one of a cell's."""
    with (folder / _LEDGER).open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps({"run_id": run_id} | ({"eval_id": eval_id} if eval_id else {})) + "\n")


def finish_cell(
    folder: Path, status: Literal["done", "failed"], *, wall_s: float, error: str | None = None
) -> CellRecord:
    """Write the cell's record with the ids of its runs; it is written last and means that the cell is over."""
    runs, evaluations = (_collected(folder, what) for what in ("run_id", "eval_id"))
    record = CellRecord(status=status, runs=runs, evaluations=evaluations, wall_s=round(wall_s, 1), error=error)
    write_record(folder, record)
    (folder / _LEDGER).unlink(missing_ok=True)
    return record


def read_cell(folder: Path) -> CellState:
    """Return the status of a cell; one with damaged files has failed, and `error` names the damage."""
    spec = None
    try:
        spec = read_cell_spec(folder)
        record = read_typed(folder / "record.json", CellRecord, _FIRST_VERSION)
    except InputError as error:
        return CellState(folder, spec, "failed", error=str(error))
    if record is None:
        status = "running" if is_held(folder) else "stale"
        return CellState(folder, spec, status, _collected(folder, "run_id"), _collected(folder, "eval_id"))
    return CellState(folder, spec, record.status, record.runs, record.evaluations, record.wall_s, record.error)


def cells(study_folder: str | Path) -> list[CellState]:
    """Return the cells of all batches of a study, by id."""
    unpack(Path(study_folder))
    folders = sorted((Path(study_folder) / "cells").glob("*"))
    return [read_cell(folder) for folder in folders if folder.is_dir() and not folder.name.startswith(".")]


def read_notebook(cell_folder: str | Path) -> list[dict[str, Any]]:
    """Return the cells of an executed notebook, each text in one piece; none while there is no notebook.

    Each has `cell_type`, `source` and, for code, `outputs` in the notebook format's own words.

    Raises:
        InputError: the file is there and is no notebook.
    """
    file = Path(cell_folder) / "notebook.ipynb"
    try:
        found = json_object(json.loads(file.read_text(encoding="utf-8")))["cells"]
        return [{**cell, "source": _text(cell["source"]), "outputs": _outputs(cell)} for cell in found]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is no executed notebook ({error!r}): run its cell again") from None


def read_log(cell_folder: str | Path, last_bytes: int = 20_000) -> str:
    """Return the end of a cell's log; empty while there is none."""
    try:
        return (Path(cell_folder) / "log.txt").read_bytes()[-last_bytes:].decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _collected(folder: Path, what: str) -> tuple[str, ...]:
    """Return the ids of one kind in the ledger, each once, in the order in which the runs were opened."""
    lines, _ = read_lines(folder / _LEDGER)
    return tuple(dict.fromkeys(str(line[what]) for line in lines if what in line))


def _text(value: str | list[str]) -> str:
    """Return a notebook's text, which may be stored as one text or as lines, in one piece."""
    return value if isinstance(value, str) else "".join(value)


def _outputs(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the outputs of a notebook's cell, each text in one piece; output that is JSON stays as it is."""
    joined = []
    for output in cell.get("outputs", []):
        data = {kind: _text(v) if kind.startswith("text/") else v for kind, v in output.get("data", {}).items()}
        joined.append({**output, "text": _text(output.get("text", "")), "data": data})
    return joined
