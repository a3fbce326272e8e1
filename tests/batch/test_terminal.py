"""What a batch shows while its cells run."""

import io

import pytest
from rich.console import Console

from studykit.batch import terminal
from studykit.batch.grid import Cell
from studykit.batch.terminal import BatchReport, RunProgress, name_cells
from studykit.results.cells import add_run, write_cell
from studykit.results.record import CellSpec
from studykit.results.status import Activity, StatusFile


@pytest.fixture
def cells(tmp_path):
    """Return two cells of a study that differ in their seed and in a list."""
    study = tmp_path / "results" / "s"
    (tmp_path / "notebooks").mkdir()
    given = [{"seed": seed, "methods": methods, "steps": 3} for seed, methods in ((0, ["sft"]), (1, ["sft", "kd"]))]
    made = [Cell(tmp_path / "notebooks" / "01_x.ipynb", p, study, f"{n:012x}") for n, p in enumerate(given)]
    for cell in made:
        spec = {"notebook": "01_x", "notebooks": "..", "parameters": cell.parameters, "timeout_s": 60}
        write_cell(cell.folder, CellSpec(cell_id=cell.cell_id, **spec))
    return made


def train(cell, run_id, done):
    """Open a run as the notebook of a cell does, and write how far it is."""
    folder = cell.study_folder / "runs" / run_id
    folder.mkdir(parents=True)
    add_run(cell.folder, run_id)
    StatusFile(folder)(Activity("training", "steps", "kd"), done, 300)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_batch_shows_what_each_running_cell_does(cells, is_terminal, monkeypatch):
    monkeypatch.setattr(terminal, "_EVERY_S", 0.0)
    monkeypatch.setattr(terminal, "_LIVE_EVERY_S", 0.0)
    text = io.StringIO()
    console = Console(file=text, force_terminal=is_terminal, width=100)
    train(cells[1], "a" * 12, 120)
    with BatchReport(cells, console) as report:
        report.update({"done": 0, "failed": 0, "running": 2, "waiting": 0})
        report.watch(cells)
    assert "seed=0, methods=['sft']: starting" in text.getvalue()
    assert "seed=1, methods=['sft', 'kd']: run 1, training (kd): 120 of 300 steps" in text.getvalue()


def test_a_log_of_a_batch_gets_no_more_than_a_line_a_minute(cells):
    text = io.StringIO()
    with BatchReport(cells, Console(file=text, width=100)) as report:
        for _ in range(5):
            report.watch(cells)
    assert text.getvalue().strip() == ""


def test_a_cell_whose_run_is_over_says_how_many_are_done(cells):
    train(cells[0], "b" * 12, 300)
    (cells[0].study_folder / "runs" / ("b" * 12) / "status.json").unlink()
    assert cells[0].doing() == "1 run done"


def test_a_cell_is_named_by_what_differs(cells):
    assert list(name_cells(cells).values()) == ["seed=0, methods=['sft']", "seed=1, methods=['sft', 'kd']"]
    assert list(name_cells(cells[:1]).values()) == [cells[0].cell_id]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_run_shows_what_it_does(is_terminal, monkeypatch):
    monkeypatch.setattr(terminal, "_EVERY_S", 0.0)
    text = io.StringIO()
    with RunProgress(Console(file=text, force_terminal=is_terminal, width=100)) as progress:
        progress.show("training [kd]: 1 of 2 steps")
    assert "training [kd]: 1 of 2 steps" in text.getvalue()
