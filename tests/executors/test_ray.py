"""Ray: what is refused without it, and a real cluster of two nodes on this machine."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fake_notebooks import MARKER, PATIENCE_S, marked, wait_for
from training_grid import CELLS, STEPS, assert_each_trained_once, noted, write_grid

from studykit.batch.grid import plan
from studykit.errors import InputError
from studykit.executors import get_executor
from studykit.executors.ray import Ray

INSTALLED = find_spec("ray") is not None
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes(timeout=300)
print(cluster.address, flush=True)
for line in sys.stdin:  # each line ends a node
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
"""


@pytest.fixture
def cluster(tmp_path):
    """Start a head and two nodes that demand tokens; return its process and address."""
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, MARKER: str(tmp_path)}
    environment |= {"OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": f"{Path(__file__).parents[2]}:{os.environ.get('PYTHONPATH', '')}"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", CLUSTER]
    ray: Any
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, **pipes) as ray:
        yield ray, ray.stdout.readline().strip(), environment
        ray.stdin.close()
        ray.wait(PATIENCE_S)
    for process in marked(str(tmp_path)):
        process.kill()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="Ray is not installed")
def test_every_run_ends_once_on_two_nodes_one_of_which_dies(cluster, tmp_path, plain_spec, stage, one_thread):
    process, address, environment = cluster
    arms = write_grid(tmp_path, [plain_spec(stage(steps=STEPS), teacher=False, seed=seed) for seed in range(CELLS)])
    command = [sys.executable, "-m", "studykit.cli", "batch", "grid", "--executor", "ray", "--jobs", "2"]
    with subprocess.Popen([*command, "-o", f"address={address}"], cwd=tmp_path, env=environment) as batch:
        wait_for(lambda: len(noted(tmp_path, "held")) == 2)
        in_hand = {int(number) for number, *_ in noted(tmp_path, "held")}
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "removed\n"
        (tmp_path / "hold").unlink()
        assert batch.wait(4 * PATIENCE_S) == 0
    cells = plan("grid", folder=tmp_path / "notebooks", results_root=tmp_path / "results")
    assert {cell.status() for cell in cells} == {"done"}
    assert_each_trained_once(tmp_path, arms, in_hand)


@pytest.mark.skipif(INSTALLED, reason="Ray is installed")
def test_a_ray_that_is_not_there_is_refused():
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
