"""A real Slurm on this machine, for tests: a controller and two nodes, each with a GPU that is a file."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
SchedulerParameters=batch_sched_delay=1,sched_interval=2
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=500 Gres=gpu:1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=500 Gres=gpu:1
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[Path]:
    """Start it, and yield its configuration file; all jobs and daemons end with the block."""
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
        yield configuration


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
