"""Progress on the terminal: of a batch its counts, the time left and the finding so far; of a capture a bar.

Where the output is not a terminal, plain lines: one per cell that ends, one a minute for each that is running, and the
table once at the end; of a capture one per minute.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from studykit.batch.estimates import done_line, estimate_line, estimate_table
from studykit.batch.grid import Cell
from studykit.batch.work import describe_counts
from studykit.findings import TEXT_COLUMNS, Finding, format_cell
from studykit.results.cells import read_cell
from studykit.results.status import time_left

_EVERY_S = 60.0
"""Between two plain lines about the same thing."""

_LIVE_EVERY_S = 1.0

_WIDE = 108
"""Characters per line that the whole table of a finding needs."""

_TRAINING, _SCORING = ("train_s", "teacher_s", "failed_s"), ("evaluate_s", "failed_evaluate_s")
"""Seconds of a run, and of each of its evaluations."""


class BatchReport:
    """A live view of a batch; a context manager.

    Args:
        cells: all cells of the batch.
        console: the output; stdout by default.
    """

    def __init__(self, cells: Sequence[Cell], console: Console | None = None):
        self.cells = cells
        self.console = console or Console(width=None if sys.stdout.isatty() else _WIDE)
        self.started = time.monotonic()
        self.done_before = sum(cell.status() == "done" for cell in cells)
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._names = name_cells(cells)
        self._watched = self.started
        self._above: list[RenderableType] = []
        self._expected: dict[str, tuple[float, float]] = {}  # seconds: without widened grids of tuning, and with all
        self._begun: dict[str, float] = {}
        self._started: set[str] = set()
        self._jobs = 1

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.update(Group(*self._tables()), refresh=True)
            self._live.stop()
        elif kind is None:
            self.console.print(*self._tables(), sep="\n")

    def say(self, line: str) -> None:
        """Print one line above the view."""
        self.console.print(line)

    def expect(self, estimates: Mapping[str, Mapping[str, float]], jobs: int, *, whole: bool = False) -> None:
        """Take what the cells will take, and show it: in one line, or as a table with a row for each cell."""
        self._expected = {
            cell_id: (estimate["seconds"], estimate["seconds"] + estimate["further_s"])
            for cell_id, estimate in estimates.items()
        }
        self._jobs = jobs
        named = {self._names[cell_id]: estimate for cell_id, estimate in estimates.items()}
        if whole and named:
            self.console.print(estimate_table(named))
        if named:
            self.say(estimate_line(named.values(), jobs))

    def update(self, counts: dict[str, int]) -> None:
        """Show new counts, and the finding so far."""
        line = describe_counts(counts) + self._time_left(counts)
        if self._live:
            self._above = [*self._tables(), line]
            self._live.update(Group(*self._above), refresh=True)
        else:
            self.console.print(line)

    def watch(self, running: Sequence[Cell]) -> None:
        """Show what the running cells are doing: on a terminal once a second, elsewhere once a minute."""
        now = time.monotonic()
        self._begun = {cell.cell_id: self._begun.get(cell.cell_id, now) for cell in running}
        self._started |= self._begun.keys()
        if now - self._watched < (_LIVE_EVERY_S if self._live else _EVERY_S):
            return
        self._watched = now
        lines = [Text(f"{self._names[cell.cell_id]}: {cell.doing()}") for cell in running]
        if self._expected and lines:
            lines.append(Text(time_left(*self._expected_left())))
        if self._live:
            self._live.update(Group(*self._above, *lines), refresh=True)
        elif lines:
            self.console.print(*lines, sep="\n")

    def _time_left(self, counts: dict[str, int]) -> str:
        ended = counts["done"] + counts["failed"] - self.done_before
        left = counts["running"] + counts["waiting"]
        if not left or (ended <= 0 and not self._expected):
            return ""
        if self._expected:
            return "; " + time_left(*self._expected_left())
        return "; " + time_left((time.monotonic() - self.started) / ended * left)

    def _expected_left(self) -> tuple[float, float]:
        """Return the least and the most seconds left by the estimates, corrected by what the ended cells have taken."""
        now, expected = time.monotonic(), dict(self._expected)
        ended = [cell for cell in self.cells if cell.cell_id in (self._started - self._begun.keys()) & expected.keys()]
        taken = {cell.cell_id: wall_s for cell in ended if (wall_s := cell.wall_s())}
        guessed = [expected.pop(cell_id) for cell_id in taken]
        pace = _pace(sum(taken.values()), sum(least for least, _ in guessed), sum(most for _, most in guessed))
        spent = {cell_id: now - begun for cell_id, begun in self._begun.items()}

        def left(bound: int) -> float:
            each = (max(0.0, guess[bound] * pace - spent.get(cell_id, 0.0)) for cell_id, guess in expected.items())
            return sum(each) / self._jobs

        return left(0), left(1)

    def _tables(self) -> list[RenderableType]:
        return [
            part
            for finding in findings_of(self.cells)
            for part in (_table(finding, self.console.width), finding.sentence)
        ]


def _pace(taken: float, least: float, most: float) -> float:
    """Return how much slower cells were than expected, as far as widened grids do not explain it.

    >>> _pace(0, 0, 0), _pace(300, 100, 150), _pace(120, 100, 150), _pace(80, 100, 150)
    (1.0, 2.0, 1.0, 0.8)
    """
    return taken / min(max(taken, least), most) if taken else 1.0


class CaptureProgress:
    """The number of positions captured from a teacher; a context manager.

    Args:
        console: the output; stderr by default.
    """

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True)
        columns = TextColumn("positions captured"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=self.console) if self.console.is_terminal else None
        self._task = self._bar.add_task("", total=None) if self._bar else None
        self._started = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Show the number of captured positions, of all that were missing."""
        now = time.monotonic()
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif now - self._printed >= _EVERY_S and done:
            self._printed = now
            left = time_left((now - self._started) / done * (total - done))
            self.console.print(f"{done:,} of {total:,} positions captured; {left}")


class RunProgress:
    """What a run is doing, on stderr; a context manager. Where that is no terminal, a line a minute.

    Args:
        console: the output; stderr by default.
    """

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True)
        self._live = self.console.status("starting") if self.console.is_terminal else None
        self._printed = time.monotonic()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def show(self, line: str) -> None:
        """Show a line instead of the last one."""
        now = time.monotonic()
        if self._live:
            self._live.update(escape(line))
        elif now - self._printed >= _EVERY_S:
            self._printed = now
            self.console.print(line, highlight=False, markup=False)


def name_cells(cells: Sequence[Cell]) -> dict[str, str]:
    """Return a short name for each cell by its id: the parameters in which the cells differ."""
    texts = {cell.cell_id: {name: str(value) for name, value in cell.parameters.items()} for cell in cells}
    names = dict.fromkeys(name for text in texts.values() for name in text)
    differing = [name for name in names if len({text.get(name) for text in texts.values()}) > 1]
    return {
        cell_id: ", ".join(f"{name}={text[name]:.40}" for name in differing if name in text) or cell_id
        for cell_id, text in texts.items()
    }


def describe_done(cells: Sequence[Cell]) -> str:
    """Return in one line what cells that are done have on disk, and what it took by the records."""
    from studykit import results

    runs, trials, seconds = 0, 0, 0.0
    for folder in dict.fromkeys(cell.study_folder for cell in cells):
        ids = {run for cell in cells if cell.study_folder == folder for run in read_cell(cell.folder).runs}
        rows = results.load(folder, trials=True)
        rows = rows[rows["run_id"].isin(ids) & (rows["status"] == "done")]
        each = rows.drop_duplicates("run_id")
        own = int(each["trial"].eq(True).sum()) if "trial" in each else 0
        runs, trials = runs + len(each) - own, trials + own
        seconds += sum(float(each[name].sum()) for name in _TRAINING if name in each)
        seconds += sum(float(rows[name].sum()) for name in _SCORING if name in rows)
    return done_line(len(cells), runs, trials, seconds)


def findings_of(cells: Sequence[Cell]) -> list[Finding]:
    """Return the finding of each study, notebook and method of a batch that has one: `01_data_size` has `data_size`."""
    from studykit import results
    from studykit.findings._answers import find_answers

    found = []
    for folder in dict.fromkeys(cell.study_folder for cell in cells if cell.study_folder.exists()):
        own = {cell.cell_id for cell in cells if cell.study_folder == folder}
        states = [cell for cell in results.cells(folder) if cell.cell_id in own]
        found += [one.finding for one in find_answers(results.load(folder), states, folder, by_ablation=False)]
    return found


def _table(finding: Finding, width: int) -> Table:
    """Return the finding's table, without its last columns where the terminal is too narrow for them."""
    shown = {
        str(column): [format_cell(value, finding.digits.get(str(column), 1)) for value in finding.table[column]]
        for column in finding.table
    }
    widths = [max(map(len, [name, *cells])) for name, cells in shown.items()]
    while len(widths) > 2 and sum(widths) + 3 * len(widths) + 1 > width:
        widths.pop()
    table = Table()
    for column in list(shown)[: len(widths)]:
        table.add_column(column, justify="left" if column in TEXT_COLUMNS else "right", no_wrap=True)
    for row in zip(*list(shown.values())[: len(widths)], strict=True):
        table.add_row(*row)
    return table
