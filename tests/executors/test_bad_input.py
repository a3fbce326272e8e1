"""What no engine can run is refused by the command line in one line with exit code 2, before anything is written.

What needs a real cluster is in test_ray.py and test_slurm.py, a worker without the folder in tests/batch/test_work.py.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_notebooks import everything_under, write_batch, write_notebook

from studykit.batch.elsewhere import Workers
from studykit.batch.grid import Preflight, plan
from studykit.cli import main
from studykit.errors import InputError
from studykit.executors.ray import Ray
from studykit.executors.slurm import Slurm
from studykit.files.leases import take

CASES = {
    "nothing": {
        "unknown executor 'slrum'; did you mean 'slurm'?": ["slrum"],
        "executor 'local': unknown option 'gpus'; ": ["local", "-o", "gpus=1"],
        "executor 'slurm': unknown option 'partitoin'; did you mean 'partition'?": ["slurm", "-o", "partitoin=gpu"],
        "executor 'slurm': no sbatch on the path: run this where jobs are submitted to Slurm": ["slurm"],
        "executor 'ray': Ray is not installed: pip install 'studykit[ray]'": ["ray"],
        "executor 'ray': unknown option 'num_gpu'; did you mean 'num_gpus'?": ["ray", "-o", "num_gpu=1"],
        "executor 'ray': num_cpus must be greater than or equal to 0": ["ray", "-o", "num_cpus=-1"],
    },
    "both": {
        "executor 'slurm': mem=1000 is 1.0 GB, a cell needs about 2.1 GB": ["slurm", "-o", "mem=1000"],
        "executor 'slurm': mem=1g is 1.1 GB, a cell needs about 2.1 GB": ["slurm", "-o", "mem=1g"],
        "executor 'ray': memory_gib=1, a cell needs about 2.0 GiB": ["ray", "-o", "memory_gib=1"],
        "executor 'ray': none of the cluster's 1 nodes has 1 CPU, 2 TPU": ["ray", "-o", 'resources={"TPU": 2}'],
    },
    "both, but no cluster": {
        "/ray/ray_current_cluster is stale: no cluster at '127.0.0.1:1': ": ["ray"],
        "executor 'ray': no cluster at '127.0.0.1:2': ": ["ray", "-o", "address=127.0.0.1:2"],
        "executor 'ray': address 'local' is no cluster: ": ["ray", "-o", "address=local"],
    },
    "held by slurm": {", a worker of slurm, holds a cell of this grid, and one engine is enough for it": ["ray"]},
    "held by ray": {", a worker of ray, holds a cell of this grid, and one engine is enough for it": ["slurm"]},
    "memory": {
        "/results is in the memory of this machine (tmpfs), where no other machine sees it: set --results": ["slurm"],
        "/results is in the memory of this machine (tmpfs), where no other machine sees it: set ": ["ray"],
    },
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that makes an empty folder of a machine with both engines, or without one."""
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_notebook(tmp_path / "notebooks", "01_fake")
    write_batch(tmp_path / "notebooks", "grid", [{"notebook": "01_fake"}])
    monkeypatch.chdir(tmp_path)

    def make(what):
        if what == "nothing":
            return
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
        nodes = [{"Resources": {"CPU": 2.0}, "Alive": True}]
        errors = SimpleNamespace(RayError=RuntimeError)
        ray = SimpleNamespace(init=lambda **options: None, nodes=lambda: nodes, exceptions=errors)
        monkeypatch.setitem(sys.modules, "ray", ray)
        if what == "both, but no cluster":
            (tmp_path / "ray").mkdir()
            (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
            monkeypatch.setattr("psutil.process_iter", lambda names: [])
        if what.startswith("held"):
            with monkeypatch.context() as started:
                started.setenv({"ray": "RAY_JOB_ID", "slurm": "SLURM_JOB_ID"}[what.split()[-1]], "7")
                held.append(take(plan("grid", folder=Path("notebooks"), results_root=Path("results"))[0].folder))
        if what == "memory":
            mount = SimpleNamespace(mountpoint=str(tmp_path.resolve()), fstype="tmpfs")
            monkeypatch.setattr("psutil.disk_partitions", lambda all: [mount])

    held = []
    yield make
    for lease in held:
        lease.release()


def test_more_workers_of_the_engine_that_holds_a_cell_are_welcome(machine):
    machine("held by slurm")
    cells = plan("grid", folder=Path("notebooks"), results_root=Path("results"))
    with pytest.raises(InputError, match="a worker of slurm"):
        Workers(Ray(), ["true"], Path("results") / "x.log", cells).check()
    Workers(Slurm(), ["true"], Path("results") / "x.log", cells).check()


@pytest.mark.parametrize(
    ("has", "message", "arguments"), [(has, *case) for has, cases in CASES.items() for case in cases.items()]
)
def test_it_is_refused_in_one_line_and_nothing_is_written(
    tmp_path, machine, monkeypatch, capsys, has, message, arguments
):
    machine(has)
    needs = {"memory_bytes": 2.0**31}
    monkeypatch.setattr("studykit.batch.grid.preflight", lambda cells, jobs: Preflight([], {cells[0].cell_id: needs}))
    monkeypatch.setattr("studykit.batch.terminal.BatchReport.expect", lambda *arguments, **options: None)
    monkeypatch.setattr(sys, "argv", ["studykit", "batch", "grid", "--executor", *arguments])
    before = everything_under(tmp_path)
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr().err
    assert (end.value.code, printed.count("\n")) == (2, 1), printed
    assert message in printed
    assert everything_under(tmp_path) == before


def test_nodes_that_do_not_see_the_results_are_reported_in_one_line(tmp_path, machine, monkeypatch, capsys):
    machine("both")

    class Unseen(RuntimeError):
        cause = InputError(f"n1 does not see {tmp_path}: workers need a disk that all share")

    def get(task):
        raise Unseen

    ray = {"remote": lambda **_: lambda work: SimpleNamespace(remote=lambda *_: "task"), "get": get}
    ray |= {"wait": lambda tasks, **_: (tasks, []), "cancel": lambda *_, **__: None}
    for name, function in ray.items():
        monkeypatch.setattr(sys.modules["ray"], name, function, raising=False)
    monkeypatch.setattr("studykit.batch.grid.preflight", lambda cells, jobs: Preflight([], {}))
    monkeypatch.setattr("studykit.batch.terminal.BatchReport.expect", lambda *arguments, **options: None)
    monkeypatch.setattr(sys, "argv", ["studykit", "batch", "grid", "--executor", "ray"])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr().err
    assert (end.value.code, printed.count("\n")) == (2, 1), printed
    assert f"executor 'ray': n1 does not see {tmp_path}: workers need a disk that all share" in printed
    assert not list((tmp_path / "results").rglob("record.json"))
