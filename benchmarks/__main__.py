"""Run all benchmarks with sizes for this machine: `make bench`, or `python -m benchmarks --device cuda`.

This takes about three hours on two cores, and about ten minutes on one large GPU. A script that fails does
not stop the others; its name is printed at the end.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

SIZES = {
    "cpu": (
        "step --shape lexicon --tokens 64x24 --repeats 5 --warmup 5 --steps 40 --top-k 16",
        "step --shape qwen --tokens 4x256 --repeats 5 --warmup 1 --steps 1",
        "step --shape llama --layers 2 --tokens 4x256 --repeats 5 --warmup 1 --steps 1",
        "cost --repeats 5",
        "study --repeats 5",
        "overheads --repeats 5",
        "notebooks",
        "workers --repeats 5",
        "pools --repeats 1",
        "shared_folder",
        "head --shape qwen --tokens 512 --repeats 5",
        "head --shape llama --tokens 512 --repeats 5 --only plain trl studykit",
    ),
    "cuda": (
        "head --device cuda --shape qwen --tokens 8192 --repeats 5",
        "head --device cuda --shape llama --tokens 8192 --repeats 5",
        "cost --device cuda --tokens 2048 4096 8192 --repeats 5",
        "step --device cuda --shape llama --tokens 4x1024 --repeats 1 --warmup 2 --steps 10",
    ),
}
"""Script and arguments. On a GPU there are few repeats, since the start of a process outweighs the measurement."""

SCRIPTS = ("step", "cost", "study", "overheads", "notebooks", "workers", "pools", "shared_folder", "head")


def main() -> int:
    """Run the scripts one after the other; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=SIZES, default="cpu")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS, help="only these scripts")
    chosen = parser.parse_args()
    failed = []
    for line in (line for line in SIZES[chosen.device] if line.partition(" ")[0] in chosen.only):
        script, *arguments = line.split()
        print(line, flush=True)
        started = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{script}", *arguments]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)
        print(f"{time.monotonic() - started:.0f} s", flush=True)
        failed += [line] if done.returncode else []
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
