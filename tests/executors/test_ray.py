"""Ray: what is refused without it, and a real cluster of two nodes on this machine."""

import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import psutil
import pytest
from fake_notebooks import PATIENCE_S, wait_for, write_batch, write_notebook
from ray_cluster import INSTALLED, LOOPBACK, ray_cluster
from training_grid import CELLS, STEPS, assert_each_trained_once, noted, write_grid

from studykit.batch.grid import plan
from studykit.errors import InputError
from studykit.executors import get_executor
from studykit.executors.ray import Ray, _work
from studykit.files.leases import is_held

WAITING_CELL = """
import os, pathlib, time
here = pathlib.Path(place)
with (here / "started").open("a") as stream:
    stream.write(f"{number} {'ray' if 'RAY_RAYLET_PID' in os.environ else 'local'}\\n")
while (here / "hold").exists():
    time.sleep(0.05)
with (here / "ended").open("a") as stream:
    stream.write(f"{number}\\n")
"""
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # which the background job of a shell ignores
from studykit.cli import main
main()
"""
UNSEEN = """
import sys, time
from pathlib import Path
from studykit.errors import InputError
from studykit.executors.ray import Ray

executor = Ray(jobs=2, address=sys.argv[1])
executor.check(0.0)
Path.mkdir = lambda *arguments, **options: None  # a folder that this process makes, and no other one sees
handle = executor.submit(["true"], Path("gone/my.log"))
try:
    while executor.poll(handle) is None:
        time.sleep(0.1)
except InputError as error:
    print(error)
"""


def on_ray(test):
    """Mark a test that needs a real cluster."""
    test = pytest.mark.skipif(not INSTALLED, reason="Ray is not installed")(test)
    return pytest.mark.ray(pytest.mark.slow(test))


@pytest.fixture(scope="module")
def cluster():
    """Start a head and two nodes."""
    with ray_cluster() as running:
        yield running


@pytest.fixture
def start(cluster, tmp_path):
    """Return a function that starts a command of the kit; what still runs at the end is killed."""
    started = []

    def command(*arguments):
        plain = [sys.executable, "-c", INTERRUPTIBLE, *arguments]
        pipes: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(plain, cwd=tmp_path, env=cluster.environment, text=True, **pipes))
        return started[-1]

    yield command
    for process in started:
        process.kill()
        process.communicate()
    for process in running_in(tmp_path):
        process.kill()


@pytest.fixture
def on_nodes(cluster):
    """Return the options that start workers on the cluster."""
    return lambda jobs: ["--executor", "ray", "--jobs", str(jobs), "-o", f"address={cluster.address}"]


def running_in(folder):
    """Return the workers, cells and kernels of a folder's batches."""
    words = ((process, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    return [process for process, line in words if any(str(folder) in word for word in line)]


@on_ray
def test_every_run_ends_once_on_two_nodes_one_of_which_dies(
    cluster, start, on_nodes, tmp_path, plain_spec, stage, one_thread
):
    arms = write_grid(tmp_path, [plain_spec(stage(steps=STEPS), teacher=False, seed=seed) for seed in range(CELLS)])
    batch = start("batch", "grid", *on_nodes(2))
    wait_for(lambda: len(noted(tmp_path, "held")) == 2)
    in_hand = {int(number) for number, *_ in noted(tmp_path, "held")}
    assert len(in_hand) == 2
    addresses = cluster.listens_on()
    assert addresses
    assert addresses <= LOOPBACK
    cluster.replace_node()
    wait_for(lambda: len(noted(tmp_path, "held")) == 3)  # the worker of the dead node is on the new one
    (tmp_path / "hold").unlink()
    assert batch.wait(4 * PATIENCE_S) == 0, batch.stderr.read()
    cells = plan("grid", folder=tmp_path / "notebooks", results_root=tmp_path / "results")
    assert {cell.status() for cell in cells} == {"done"}
    assert_each_trained_once(tmp_path, arms, in_hand)


@on_ray
def test_an_interrupt_ends_all_workers_and_then_only_this_machine_shares_the_grid(start, on_nodes, tmp_path):
    write_notebook(tmp_path / "notebooks", "01_fake", WAITING_CELL)
    entry = {"notebook": "01_fake", "grid": {"number": list(range(4)), "place": str(tmp_path)}}
    write_batch(tmp_path / "notebooks", "grid", [entry])
    (tmp_path / "hold").write_text("")
    cells = plan("grid", folder=tmp_path / "notebooks", results_root=tmp_path / "results")
    batch = start("batch", "grid", *on_nodes(2))
    wait_for(lambda: len(noted(tmp_path, "started")) == 2)
    batch.send_signal(signal.SIGINT)
    assert batch.wait(PATIENCE_S) != 0
    wait_for(lambda: not running_in(tmp_path))
    assert not any(is_held(cell.folder) or cell.status() == "done" for cell in cells)
    (tmp_path / "started").unlink()
    batches = [start("batch", "grid", *on_nodes(1)), start("batch", "grid")]
    wait_for(lambda: {engine for _, engine in noted(tmp_path, "started")} == {"ray", "local"})
    _, error = (third := start("batch", "grid", "--executor", "slurm")).communicate(timeout=PATIENCE_S)
    assert (third.returncode, error.count("\n")) == (2, 1), error
    assert "a worker of ray, holds a cell of this grid" in error
    (tmp_path / "hold").unlink()
    assert [batch.wait(PATIENCE_S) for batch in batches] == [0, 0]
    assert Counter(number for [number] in noted(tmp_path, "ended")) == Counter(map(str, range(4)))
    assert len(noted(tmp_path, "started")) == 4


@on_ray
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "num_gpus=1"], "executor 'ray': none of the cluster's 3 nodes has 1 CPU, 1 GPU"),
        (["-o", "address=127.0.0.1:1"], "executor 'ray': no cluster at '127.0.0.1:1': "),
    ],
)
def test_a_cluster_that_cannot_run_a_batch_is_refused_in_one_line(start, on_nodes, tmp_path, options, message):
    write_notebook(tmp_path / "notebooks", "01_fake")
    write_batch(tmp_path / "notebooks", "grid", [{"notebook": "01_fake"}])
    _, error = (batch := start("batch", "grid", *on_nodes(1), *options)).communicate(timeout=PATIENCE_S)
    assert (batch.returncode, error.count("\n")) == (2, 1), error
    assert message in error
    assert not (tmp_path / "results").exists()


@on_ray
def test_nodes_that_do_not_see_the_results_say_so(cluster, tmp_path):
    command = [sys.executable, "-c", UNSEEN, cluster.address]
    done = subprocess.run(command, cwd=tmp_path, env=cluster.environment, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1, done.stderr
    assert f" does not see {tmp_path} or {tmp_path}/gone/my." in done.stdout


def test_a_ray_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray is not installed: pip install 'studykit\[ray\]'"):
        Ray().check(0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_gpu": 1}, "unknown option 'num_gpu'; did you mean 'num_gpus'"),
        ({"num_cpus": -1}, "num_cpus must be greater than or equal to 0"),
        ({"retries": -2}, "retries must be greater than or equal to -1"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        get_executor("ray", 1, options)


def test_less_memory_than_a_cell_needs_is_refused():
    with pytest.raises(InputError, match=r"memory_gib=1, a cell needs about 2\.0 GiB"):
        Ray(memory_gib=1.0).check(2**31)


def test_a_node_that_does_not_see_the_folders_names_itself_and_them(tmp_path):
    for folder, log in ((tmp_path / "gone", tmp_path / "my.log"), (tmp_path, tmp_path / "gone" / "my.log")):
        with pytest.raises(InputError, match=rf" does not see {folder} or {log}: workers need a disk that all share"):
            _work(["true"], str(folder), str(log))
