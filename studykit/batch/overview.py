"""Who works on a batch: its cells, their holders, the age of their heartbeats, and the time left. Torch-free.

overview = Overview.of(plan("quickstart"))
print(overview.line())        # 4 done, 2 running, 9 waiting; about 12 min left
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import mean
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.table import Table

from studykit.batch.grid import Cell
from studykit.batch.terminal import name_cells
from studykit.batch.work import describe_counts
from studykit.files.leases import Holder, holder
from studykit.results.cells import read_cell
from studykit.results.status import time_left


@dataclass(frozen=True)
class CellLine:
    """One cell of a batch.

    Attributes:
        cell_id: its id.
        name: the parameters in which the cells of the batch differ.
        status: `done`, `failed`, `running` or `waiting`.
        holder: the worker that runs it.
        doing: what it is doing, or what failed.
        wall_s: seconds that it took, once it is over.
    """

    cell_id: str
    name: str
    status: str
    holder: Holder | None = None
    doing: str = ""
    wall_s: float | None = None

    @classmethod
    def of(cls, cell: Cell, name: str) -> Self:
        """Read one cell."""
        status = cell.status()
        if status != "waiting":
            state = read_cell(cell.folder)
            return cls(cell.cell_id, name, status, doing=state.error or "", wall_s=state.wall_s)
        found = holder(cell.folder)
        if found is None:
            return cls(cell.cell_id, name, status)
        return cls(cell.cell_id, name, "running", found, cell.doing())

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        held = self.holder
        by = {"host": held.host, "pid": held.pid, "since": held.since, "age_s": round(held.age_s, 1)} if held else None
        plain = {"cell": self.cell_id, "name": self.name, "status": self.status, "holder": by, "doing": self.doing}
        return plain | {"wall_s": self.wall_s}


@dataclass(frozen=True)
class Overview:
    """All cells of a batch at one moment."""

    lines: tuple[CellLine, ...]

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> Self:
        """Read the cells."""
        names = name_cells(cells)
        return cls(tuple(CellLine.of(cell, names[cell.cell_id]) for cell in cells))

    @property
    def is_over(self) -> bool:
        """Whether every cell is done or has failed."""
        return all(line.status in ("done", "failed") for line in self.lines)

    def counts(self) -> dict[str, int]:
        """Return the number of cells in each state."""
        states = [line.status for line in self.lines]
        return {state: states.count(state) for state in ("done", "failed", "running", "waiting")}

    def left_s(self, now: datetime | None = None) -> float | None:
        """Return the seconds left at the pace of the cells that are done; None before one is, or while none runs."""
        taken = [line.wall_s for line in self.lines if line.status == "done" and line.wall_s is not None]
        holders = [line.holder for line in self.lines if line.holder is not None]
        if not taken or not holders:
            return None
        now = now or datetime.now(UTC)
        spent = [(now - datetime.fromisoformat(held.since)).total_seconds() for held in holders]
        running = sum(max(0.0, mean(taken) - seconds) for seconds in spent)
        return (running + mean(taken) * self.counts()["waiting"]) / len(holders)

    def line(self) -> str:
        """Return counts and time left in one line."""
        left = self.left_s()
        return describe_counts(self.counts()) + ("" if left is None else f"; {time_left(left)}")

    def table(self) -> Table:
        """Return a table with a row for each cell."""
        table = Table("cell", "status", "worker", "heartbeat", "doing")
        for line in self.lines:
            held = line.holder
            heartbeat = "" if held is None else f"{held.age_s:.0f} s ago"
            table.add_row(line.name, line.status, str(held or ""), heartbeat, line.doing)
        return table

    def view(self) -> RenderableType:
        """Return the table and the line."""
        return Group(self.table(), self.line())

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"cells": [line.to_json() for line in self.lines], "left_s": self.left_s()} | self.counts()
