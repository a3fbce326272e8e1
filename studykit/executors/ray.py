"""Start workers on a Ray cluster: one for each bundle of resources, started again where a node dies.

`studykit batch NAME --executor ray --jobs 8 -o num_gpus=1 -o num_cpus=4` connects to the cluster that `RAY_ADDRESS` or
`-o address=...` names, and stays until all cells are over; an interrupt ends the workers. Where the cluster demands
tokens, set `RAY_AUTH_MODE=token` for the batch as for the nodes.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from studykit.errors import InputError
from studykit.executors import _processes
from studykit.executors._ray_cluster import connect, import_ray

AtLeastZero = Annotated[float, Field(ge=0)]
_GRACE_S = 60.0
_POLL_S = 0.5


class Ray:
    """Workers as tasks of a Ray cluster.

    Args:
        jobs: number of workers.
        address: of the cluster; `auto` takes the one that RAY_ADDRESS or this machine names.
        num_cpus: of each worker.
        num_gpus: of each worker.
        memory_gib: of each worker, as Ray counts it; 0 for no request.
        resources: named resources of each worker, as JSON.
        retries: how often a worker whose node has died is started again; -1 without a limit.
    """

    is_detached = False

    def __init__(
        self,
        jobs: int = 1,
        *,
        address: str = "auto",
        num_cpus: AtLeastZero = 1.0,
        num_gpus: AtLeastZero = 0.0,
        memory_gib: AtLeastZero = 0.0,
        resources: dict[str, float] | None = None,
        retries: Annotated[int, Field(ge=-1)] = -1,
    ):
        self.jobs, self._address = jobs, address
        self._bundle: dict[str, Any] = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources or {}}
        if memory_gib:
            self._bundle["memory"] = int(memory_gib * 2**30)
        self._retries = retries

    @property
    def gpus(self) -> float:
        """GPUs of each worker."""
        return self._bundle["num_gpus"]

    def check(self, memory_bytes: float) -> None:
        """Connect to the cluster, and refuse what cannot run on it.

        Raises:
            InputError: no Ray, no cluster, no token for it, less memory than a cell needs, or no node with the rest.
        """
        asked = self._bundle.get("memory", 0)
        if 0 < asked < memory_bytes:
            needed = f"{memory_bytes / 2**30:.1f} GiB"
            raise InputError(f"executor 'ray': memory_gib={asked / 2**30:g}, a cell needs about {needed}")
        ray = connect(self._address)
        wanted = {"CPU": self._bundle["num_cpus"], "GPU": self._bundle["num_gpus"], **self._bundle["resources"]}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
            needed = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
            raise InputError(f"executor 'ray': none of the cluster's {len(nodes)} nodes has {needed}")

    def script(self, command: Sequence[str], log: Path) -> str:
        """Return what would be started, in a line."""
        return f"{self.jobs} Ray tasks with {self._bundle} each, retries {self._retries}: {' '.join(command)}"

    def submit(self, command: Sequence[str], log: Path) -> list[Any]:
        """Start all workers and return their tasks."""
        ray = import_ray()
        log.parent.mkdir(parents=True, exist_ok=True)
        task = ray.remote(max_retries=self._retries, **self._bundle)(_work)
        names = [log.resolve().with_suffix(f".{number}.log") for number in range(self.jobs)]
        return [task.remote(list(command), str(Path.cwd()), str(name)) for name in names]

    def poll(self, handle: list[Any]) -> int | None:
        """Return the largest exit code once all workers have ended, None before.

        Raises:
            InputError: no node sees the folders.
        """
        ray = import_ray()
        done, left = ray.wait(handle, num_returns=len(handle), timeout=0)
        if left:
            return None
        codes, refusals = [], []
        for task in done:
            try:
                codes.append(ray.get(task))
            except ray.exceptions.RayError as error:  # cancelled, its node died too often, or it sees no folder
                codes.append(1)
                refusals += [cause] if isinstance(cause := getattr(error, "cause", None), InputError) else []
        if refusals and len(refusals) == len(codes):
            raise InputError(f"executor 'ray': {refusals[0]}")
        return max(codes, default=0)

    def cancel(self, handle: list[Any]) -> None:
        """End all workers; they give their cells back."""
        ray = import_ray()
        for task in handle:
            ray.cancel(task, force=False)
        ray.wait(handle, num_returns=len(handle), timeout=_GRACE_S)

    def describe(self, handle: list[Any]) -> str:
        """Return how started workers are ended."""
        return f"{len(handle)} Ray tasks; an interrupt ends them"


def _work(command: list[str], folder: str, log: str) -> int:
    """Run a worker on the node of the task; return its exit code."""
    if not Path(folder).is_dir() or not Path(log).parent.is_dir():
        raise InputError(f"{os.uname().nodename} does not see {folder} or {log}: workers need a disk that all share")
    environment = os.environ | {_processes.PARENT: str(os.getpid())}  # it ends with this process, for any reason
    with open(log, "ab") as stream:
        worker = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        while (code := worker.poll()) is None:  # Ray's cancelling does not interrupt a `wait`
            time.sleep(_POLL_S)
        return code
    finally:  # cancelled: the worker saves a checkpoint and gives its cell back
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(_GRACE_S)
            worker.kill()
