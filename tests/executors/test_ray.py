"""Ray: what is refused without it, and a real cluster of two nodes on this machine."""

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace
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

    def command(*arguments, environment=cluster.environment):
        plain = [sys.executable, "-c", INTERRUPTIBLE, *arguments]
        pipes: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(plain, cwd=tmp_path, env=environment, text=True, **pipes))
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


NO_GPU = "executor 'ray': none of the cluster's 3 nodes has 1 CPU, 1 GPU"
IS_DEMANDED = "executor 'ray': the cluster at '{}' demands a token, and "


@on_ray
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "right"}, NO_GPU),  # connected: what is missing is a GPU
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "wrong"}, f"{IS_DEMANDED}not this one: set "),
        ({"RAY_AUTH_MODE": "token"}, "executor 'ray': RAY_AUTH_MODE is 'token', and there is none here: set "),
        ({}, f"{IS_DEMANDED}there is none here: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or the file"),
    ],
)
def test_another_token_than_the_clusters_is_refused_in_one_line(cluster, start, on_nodes, tmp_path, settings, message):
    write_notebook(tmp_path / "notebooks", "01_fake")
    write_batch(tmp_path / "notebooks", "grid", [{"notebook": "01_fake"}])
    (tmp_path / "right").write_text(cluster.environment["RAY_AUTH_TOKEN"])
    (tmp_path / "wrong").write_text("1" * 64)
    others = {name: value for name, value in cluster.environment.items() if not name.startswith("RAY_AUTH_")}
    environment = others | settings | {"HOME": str(tmp_path)}  # where Ray looks for a token, too
    batch = start("batch", "grid", *on_nodes(1), "-o", "num_gpus=1", environment=environment)
    _, error = batch.communicate(timeout=PATIENCE_S)
    assert (batch.returncode, error.count("\n")) == (2, 1), error
    assert message.format(cluster.address) in error
    assert not (tmp_path / "results").exists()


@on_ray
def test_nodes_that_do_not_see_the_results_say_so(cluster, tmp_path):
    command = [sys.executable, "-c", UNSEEN, cluster.address]
    done = subprocess.run(command, cwd=tmp_path, env=cluster.environment, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1, done.stderr
    assert f" does not see {tmp_path} or {tmp_path}/gone/my." in done.stdout


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a module in Ray's place that notes to which address it connects, on a machine that is no node."""
    asked = []
    nodes = [{"Resources": {"CPU": 2.0}, "Alive": True}]
    errors = SimpleNamespace(RayError=RuntimeError)
    ray = SimpleNamespace(init=lambda address, **_: asked.append(address), nodes=lambda: nodes, exceptions=errors)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("psutil.process_iter", lambda names: [])
    return asked


@pytest.fixture
def ports():
    """Return a port on which something listens, and one where nothing does."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield server.getsockname()[1], closed.getsockname()[1]


def test_a_ray_that_is_not_there_is_refused(monkeypatch, stand_in):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray is not installed: pip install 'studykit\[ray\]'"):
        Ray().check(0.0)


def test_a_cluster_that_is_gone_is_refused_unless_this_machine_is_a_node_of_another(
    tmp_path, monkeypatch, stand_in, ports
):
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text(f"127.0.0.1:{ports[1]}")
    with pytest.raises(InputError, match=rf"{file} is stale: no cluster at '127.0.0.1:{ports[1]}': .* or name another"):
        Ray().check(0.0)
    assert not stand_in
    monkeypatch.setattr("psutil.process_iter", lambda names: [SimpleNamespace(info={"name": "raylet"})])
    Ray().check(0.0)
    assert stand_in == ["auto"]


def test_the_environment_names_the_cluster_only_where_no_option_does(monkeypatch, stand_in, ports):
    there, gone = (f"127.0.0.1:{port}" for port in ports)
    monkeypatch.setenv("RAY_ADDRESS", gone)
    Ray(address=there).check(0.0)
    with pytest.raises(InputError, match=f"no cluster at '{gone}'"):
        Ray().check(0.0)
    monkeypatch.setenv("RAY_ADDRESS", there)
    Ray().check(0.0)
    assert stand_in == [there, there]


def test_no_cluster_is_started(stand_in):
    with pytest.raises(InputError, match="address 'local' is no cluster: start one with `ray start --head`"):
        Ray(address="local").check(0.0)
    assert not stand_in


def test_what_ray_prints_is_shown_only_after_an_error_that_is_not_foreseen(monkeypatch, stand_in, capfd):
    def init(error):
        os.write(2, b"a warning of Ray's\n")
        if error is not None:
            raise error

    for error, shown in ((None, ""), (RuntimeError("no"), ""), (KeyError("no"), "a warning of Ray's\n")):
        monkeypatch.setattr(sys.modules["ray"], "init", lambda error=error, **_: init(error))
        with nullcontext() if error is None else pytest.raises((InputError, KeyError)):
            Ray().check(0.0)
        assert capfd.readouterr().err == shown


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
