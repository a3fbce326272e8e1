"""How the benchmarks measure: contestants in turns, medians, peak memory, the machine.

On a CPU every measurement is a separate process. On a GPU one process does all of them, since the GPU's memory is
counted exactly there and processes start slowly. `run_in_turns` starts processes, each of which prints a JSON object of
numbers as its last line; `call_in_turns` calls functions. A contestant that cannot run is reported with the reason.

`python -m benchmarks.measurement` prints versions and threads of its interpreter; a report gets those of the peers'
environment in this way.
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


def find_peer_python() -> str:
    """Return the interpreter of the peers' environment, or this one where there is no such environment."""
    return str(PEERS) if PEERS.exists() else sys.executable


def borrow_peers() -> None:
    """Let this process import the packages of the peers' environment that its own does not have."""
    lib = PEERS.parents[1] / "lib"
    sys.path += [str(folder) for folder in lib.glob("python*/site-packages")]


def run_in_turns(
    commands: Mapping[str, Sequence[str]], repeats: int, environment: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Run all commands one after the other, `repeats` times.

    Args:
        commands: command line by contestant.
        repeats: number of turns.
        environment: variables added to those of this process.

    Returns:
        By contestant `{"repeats", "medians", "all"}`, or `{"failed": reason}` if one of its processes failed.
    """
    return _take_turns({name: partial(_run, command, environment) for name, command in commands.items()}, repeats)


def call_in_turns(works: Mapping[str, Callable[[], dict[str, Any]]], repeats: int) -> dict[str, dict[str, Any]]:
    """Do the same with functions, in this process."""
    return _take_turns({name: partial(_call, work) for name, work in works.items()}, repeats)


def _call(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}


def _take_turns(works: Mapping[str, Callable[[], dict[str, Any]]], repeats: int) -> dict[str, dict[str, Any]]:
    outcomes: dict[str, list[dict[str, Any]]] = {name: [] for name in works}
    failed: dict[str, str] = {}
    for turn in range(repeats):
        for name in (name for name in works if name not in failed):
            print(f"  {turn + 1}/{repeats} {name}", file=sys.stderr, flush=True)
            outcome = works[name]()
            if "failed" in outcome:
                failed[name] = outcome["failed"]
            else:
                outcomes[name].append(outcome)
    return {
        name: {"failed": failed[name]}
        if name in failed
        else {"repeats": repeats, "medians": compute_medians(all_), "all": all_}
        for name, all_ in outcomes.items()
    }


def compute_medians(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of every number over the repeats."""
    return {key: statistics.median(line[key] for line in lines) for key in lines[0]}


def _run(command: Sequence[str], environment: Mapping[str, str] | None) -> dict[str, Any]:
    fixed = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    variables = {**os.environ, **fixed, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=ROOT)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return {"failed": (lines[-1] if lines else f"ended with {done.returncode}").replace(f"{ROOT}/", "")[:300]}
    return json.loads(done.stdout.splitlines()[-1])


def wait(device: str) -> None:
    """Wait until the device has finished its work."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def reset_peak(device: str) -> None:
    """Start a new measurement of peak memory."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def read_memory_gib(device: str, peak: bool) -> float:
    """Return the memory in use, or its peak since `reset_peak`: of the process on CPU, allocated by torch on CUDA."""
    if device == "cuda":
        import torch

        return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 2**30
    field = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20


def measure_work(work: Callable[[], None], device: str, warm_up: Callable[[], None] | None = None) -> dict[str, float]:
    """Return the seconds and the peak memory of some work, after a warm-up (by default the work itself).

    Memory is counted from before the warm-up: afterwards a process may hold freed memory, which the work would reuse
    without raising the peak.
    """
    before = read_memory_gib(device, peak=False)
    (warm_up or work)()
    wait(device)
    reset_peak(device)
    started = time.perf_counter()
    work()
    wait(device)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "gib": read_memory_gib(device, peak=True) - before}


def write_report(benchmark: str, name: str, settings: Mapping[str, Any], **content: Any) -> Path:
    """Write a report, with machine and versions but without a date, and return its file.

    Args:
        benchmark: name of the script.
        name: tells this report from others of the benchmark, such as shape and device.
        settings: sizes and repeats.
        content: the numbers.
    """
    here, peers = (_describe(python) for python in (sys.executable, find_peer_python()))
    machine = _describe_machine() | {"gpu": here.pop("gpu")}
    report = {"benchmark": benchmark, "settings": dict(settings), "machine": machine, **here}
    report |= {"peers": peers["versions"], **content}
    target = OUT / f"{benchmark}-{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"written to {target.relative_to(ROOT)}")
    return target


def _describe_machine() -> dict[str, Any]:
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


def _describe(python: str) -> dict[str, Any]:
    """Return the versions, threads and GPU of an interpreter."""
    done = subprocess.run([python, __file__], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _describe_here() -> dict[str, Any]:
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
    print(json.dumps(_describe_here()))
