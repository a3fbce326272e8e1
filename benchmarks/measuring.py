"""How all of it is measured: contestants in turns, medians, peak memory, the machine.

On a CPU one measurement is one process, on a GPU one process serves all: its memory is counted exactly, and starting
is slow. `in_turns` starts the processes and reads the last line each of them prints, a JSON object of numbers;
`in_turns_here` calls functions. A contestant that cannot run is kept with its reason. `python
benchmarks/measuring.py` prints versions and threads of the interpreter that runs it, which is how a report
learns about the environment of the peers.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "benchmarks"
PEERS = ROOT / ".venv-peers" / "bin" / "python"
_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "trl", "liger-kernel")
_INSTRUCTIONS = ("avx512f", "avx512_bf16", "amx_bf16")


def peer_python() -> str:
    """Return the interpreter of the peers' environment; without one, this one, which may hold them too."""
    return str(PEERS) if PEERS.exists() else sys.executable


def borrow_peers() -> None:
    """Let this process import from the peers' environment what its own does not have."""
    lib = PEERS.parents[1] / "lib"
    sys.path += [str(folder) for folder in lib.glob("python*/site-packages")]


def in_turns(
    commands: Mapping[str, Sequence[str]], repeats: int, environment: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Run every command `repeats` times, one after the other in turns.

    Args:
        commands: name of the contestant to its command line.
        repeats: turns.
        environment: variables set beside those of this process.

    Returns:
        By name `{"repeats", "medians", "all"}`, or `{"failed": reason}` where one of its processes failed.
    """
    return _turns({name: partial(_one, command, environment) for name, command in commands.items()}, repeats)


def in_turns_here(works: Mapping[str, Callable[[], dict[str, Any]]], repeats: int) -> dict[str, dict[str, Any]]:
    """Do the same with functions of this process: for a GPU, whose memory is counted exactly and starts are slow."""
    return _turns({name: partial(_caught, work) for name, work in works.items()}, repeats)


def _caught(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}


def _turns(works: Mapping[str, Callable[[], dict[str, Any]]], repeats: int) -> dict[str, dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in works}
    failed: dict[str, str] = {}
    for turn in range(repeats):
        for name in (name for name in works if name not in failed):
            print(f"  {turn + 1}/{repeats} {name}", file=sys.stderr, flush=True)
            outcome = works[name]()
            if "failed" in outcome:
                failed[name] = outcome["failed"]
            else:
                found[name].append(outcome)
    return {
        name: {"failed": failed[name]}
        if name in failed
        else {"repeats": repeats, "medians": medians(all_), "all": all_}
        for name, all_ in found.items()
    }


def medians(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of every number over the repeats."""
    return {key: statistics.median(line[key] for line in lines) for key in lines[0]}


def _one(command: Sequence[str], environment: Mapping[str, str] | None) -> dict[str, Any]:
    own = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    own = {**os.environ, **own, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=own, cwd=ROOT)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return {"failed": (lines[-1] if lines else f"ended with {done.returncode}").replace(f"{ROOT}/", "")[:300]}
    return json.loads(done.stdout.splitlines()[-1])


def wait(device: str) -> None:
    """Let the device finish."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def reset_peak(device: str) -> None:
    """Forget the peak memory so far."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory_gib(device: str, peak: bool) -> float:
    """Return the memory held now, or the peak since `reset_peak`: of the process on CPU, allocated by torch on CUDA."""
    if device == "cuda":
        import torch

        return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 2**30
    field = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20


def timed(work: Callable[[], None], device: str, warm_up: Callable[[], None] | None = None) -> dict[str, float]:
    """Do some work after a warm-up, or after itself; return its seconds, and the peak memory of it.

    Memory counts from before the warm-up: what a process has freed and kept would be missing afterwards.
    """
    before = memory_gib(device, peak=False)
    (warm_up or work)()
    wait(device)
    reset_peak(device)
    started = time.perf_counter()
    work()
    wait(device)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "gib": memory_gib(device, peak=True) - before}


def write(benchmark: str, name: str, settings: Mapping[str, Any], **content: Any) -> Path:
    """Put a report in place, with machine and versions, and return its file; it carries no date.

    Args:
        benchmark: what was measured.
        name: what tells this report from others of the benchmark, such as shape and device.
        settings: sizes and repeats.
        content: the numbers.
    """
    own, peers = (_described(python) for python in (sys.executable, peer_python()))
    machine = _machine() | {"gpu": own.pop("gpu")}
    report = {"benchmark": benchmark, "settings": dict(settings), "machine": machine, **own}
    report |= {"peers": peers["versions"], **content}
    target = OUT / f"{benchmark}-{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"written to {target.relative_to(ROOT)}")
    return target


def _machine() -> dict[str, Any]:
    """Return processor, cores and memory."""
    information = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    pairs = (line.partition(":") for line in information.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    return {
        "cpu": fields.get("model name", "unknown"),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "instructions": [name for name in _INSTRUCTIONS if name in fields.get("flags", "").split()],
    }


def _described(python: str) -> dict[str, Any]:
    """Ask an interpreter for its versions, threads and GPU."""
    done = subprocess.run([python, __file__], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _describe() -> dict[str, Any]:
    versions = {"python": sys.version.partition(" ")[0]}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    if "torch" not in versions:
        return {"versions": versions, "threads": None, "gpu": None}
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"versions": versions, "threads": torch.get_num_threads(), "gpu": gpu}


if __name__ == "__main__":
    print(json.dumps(_describe()))
