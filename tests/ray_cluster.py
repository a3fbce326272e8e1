"""A real Ray cluster on this machine, for tests: a head and two nodes that demand tokens, on the loopback address."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from fake_notebooks import MARKER, PATIENCE_S, wait_for

_TRIES = 3
INSTALLED = find_spec("ray") is not None
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

here = {"node_ip_address": "127.0.0.1", "wait": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **here})
nodes = [cluster.add_node(num_cpus=1, **here) for _ in range(2)]
cluster.wait_for_nodes(timeout=300)
print(cluster.address, flush=True)
for line in sys.stdin:  # each line kills the oldest node and starts another one
    cluster.remove_node(nodes.pop(0), allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus=1, **here))
    cluster.wait_for_nodes(timeout=300)
    print("replaced", flush=True)
cluster.shutdown()
"""
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0" * 64,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback address is this machine's, as on a desktop
    "RAY_memory_monitor_refresh_ms": "0",  # or it ends tasks where others fill the memory
    "RAY_worker_niceness": "0",  # 15 by default: next to other work they would hardly run
    "RAY_raylet_start_wait_time_s": f"{PATIENCE_S / _TRIES:.0f}",
    "RAY_gcs_server_request_timeout_seconds": f"{PATIENCE_S:.0f}",
    "OMP_NUM_THREADS": "1",
}
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        address: of its head.
        environment: of what connects to it.
        folder: of its logs and sockets; its processes name it.
    """

    address: str
    environment: dict[str, str]
    folder: Path
    _process: Any

    def replace_node(self) -> None:
        """Kill the oldest of the two nodes with all that runs on it, and start another one."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "replaced\n"

    def processes(self) -> list[psutil.Process]:
        """Return the cluster's living processes, and those that carry its environment."""
        return [process for process in psutil.process_iter() if self._is_mine(process)]

    def listens_on(self) -> set[str]:
        """Return the addresses on which any of them listens."""
        addresses = set()
        for process in self.processes():
            with suppress(psutil.Error):
                sockets = process.net_connections(kind="inet")
                addresses |= {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
        return addresses

    def _is_mine(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                marker = process.environ().get(MARKER) == str(self.folder)
                return marker or any(str(self.folder) in word for word in process.cmdline())
        return False


@contextmanager
def ray_cluster() -> Iterator[Cluster]:
    """Start it, and yield it; all of its processes end with the block, however that ends."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as name:  # short: it holds sockets
        path = f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"
        own = SETTINGS | {"RAY_TMPDIR": name, MARKER: name, "PYTHONPATH": path}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | own
        process, address = _start(Path(name), environment)
        cluster = Cluster(address, environment, Path(name), process)
        try:
            yield cluster
        finally:
            _end(cluster)


def _start(folder: Path, environment: dict[str, str]) -> tuple[Any, str]:
    """Start the processes, again where they did not find each other: Ray chooses ports that may be taken meanwhile."""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process: Any
    for _ in range(_TRIES):
        with (folder / "cluster.log").open("a") as log:
            process = subprocess.Popen([sys.executable, "-c", CLUSTER], env=environment, stderr=log, **pipes)
        address = ""
        try:
            if address := process.stdout.readline().strip():
                return process, address
        finally:  # also where this is interrupted
            if not address:
                _end(Cluster("", environment, folder, process))
    raise AssertionError((folder / "cluster.log").read_text())


def _end(cluster: Cluster) -> None:
    """End the cluster in order, and kill what is left of it."""
    process = cluster._process
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(60)
    for left in cluster.processes():
        with suppress(psutil.Error):
            left.kill()
    process.wait(PATIENCE_S)
    process.stdout.close()
    wait_for(lambda: not cluster.processes())
