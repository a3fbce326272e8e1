"""A real Slurm on this machine, for tests: a controller and two nodes, each with a GPU that is a file."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from fake_notebooks import wait_for

INSTALLED = os.geteuid() == 0 and all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch")))
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=5
BatchStartTimeout=1
SchedulerParameters=batch_sched_delay=1,sched_interval=2
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=500 Gres=gpu:1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=500 Gres=gpu:1
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        folder: of its configuration, keys and logs.
        start: starts a daemon of it.
    """

    folder: Path
    start: Callable[..., None]

    def processes(self, node: str, job: str = "") -> list[psutil.Process]:
        """Return the processes of the jobs of a node, or of one job, each before those that it has started."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                names = process.environ()
                mine = (
                    names.get("SLURM_CONF") == str(self.folder / "slurm.conf") and names.get("SLURMD_NODENAME") == node
                )
                if mine and job in ("", names.get("SLURM_JOB_ID")):
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and all of its jobs at once, as when its power fails."""
        os.kill(int((self.folder / f"{node}.pid").read_text()), signal.SIGKILL)
        jobs = self.processes(node)
        steps = {parent for job in jobs for parent in job.parents() if parent.name().startswith("slurmstepd")}
        for process in (*steps, *jobs):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        self.start("slurmd", "-D", "-N", node)


@contextmanager
def slurm(folder: Path) -> Iterator[Cluster]:
    """Start it, and yield it; all jobs and daemons end with the block."""
    configuration = _configure(folder)
    os.environ["SLURM_CONF"] = str(configuration)
    secrets = ("key-file", "munge.key"), ("socket", "munge.sock"), ("pid-file", "munge.pid")
    secrets += ("log-file", "munge.log"), ("seed-file", "munge.seed")
    with ExitStack() as running:
        log = running.enter_context((folder / "daemons.log").open("w"))

        def start(*command: str) -> None:
            daemon = subprocess.Popen(command, stdout=log, stderr=log)
            running.callback(daemon.wait)
            running.callback(daemon.terminate)

        start("munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in secrets))
        wait_for((folder / "munge.sock").exists)
        start("slurmctld", "-D")
        start("slurmd", "-D", "-N", "n1")
        start("slurmd", "-D", "-N", "n2")
        wait_for(lambda: ask("sinfo", "--noheader", "--format=%T").split() == ["idle"])
        running.callback(ask, "scancel", "--user=root")
        yield Cluster(folder, start)


def _configure(folder: Path) -> Path:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    (folder / "state").mkdir()
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, host=host, ports=_free_ports(3)))
    gpus = [folder / "gpu1", folder / "gpu2"]
    for gpu in gpus:
        gpu.write_text("")
    lines = [f"NodeName=n{number} Name=gpu File={gpu}\n" for number, gpu in enumerate(gpus, 1)]
    (folder / "gres.conf").write_text("".join(lines))
    return folder / "slurm.conf"


def ask(*command: str) -> str:
    """Return what a command of Slurm prints."""
    return subprocess.run(command, capture_output=True, text=True).stdout


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
