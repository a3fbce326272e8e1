"""What the overheads are measured on is what the package reads and runs today."""

from benchmarks import overheads
from studykit import results


def test_the_table_of_made_up_runs_is_whole(tmp_path, caplog):
    overheads.write_runs(tmp_path / "table", 3)
    frame = results.load(tmp_path / "table")
    assert sorted(frame["exact_match"]) == [0.0, 1 / 3, 2 / 3]
    assert sorted(frame["seed"]) == [0, 1, 2]
    assert not caplog.records  # nothing was left out as damaged


def test_the_cells_until_the_arms_are_pinned_run(monkeypatch):
    monkeypatch.chdir(overheads.ROOT / "notebooks")
    names = {}
    for cell in (*overheads._cells()[:2], overheads._PIN):
        exec(cell, names)
    assert list(names["arms"]) == ["sft", "kd"]
    assert [run.spec.stages[0].method for run in names["pinned"]] == ["sft", "kd"]
