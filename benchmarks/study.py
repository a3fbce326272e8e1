"""The data-size ablation of the lexicon study: all its runs sharing one cached teacher, against a live one.

    python -m benchmarks.study --budgets 500 1500 --seeds 0 1 --repeats 3

Each measurement is a whole `studykit batch`, with results and cache in a new temporary folder. Its wall time, its
tokens through the teacher's layers and its scores are written to results/benchmarks/study-<device>.json. With
`--device cuda` the batch uses the GPU, as any batch does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measurement import ROOT, run_in_turns, write_report
from studykit import results

TOP_K = {"cached teacher": 16, "live teacher": 0}
_COUNTED = ("teacher_tokens", "teacher_check_tokens")


def main() -> None:
    """Run the batch both ways in turns, or one of them once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", nargs="+", type=int, default=[500, 1500])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=0, help="optimizer steps; 0 means by the budget")
    parser.add_argument("--items", type=int, default=1000, help="held-out words")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="notebooks at a time")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--name", default=None, help="of the report, instead of <device>")
    parser.add_argument("--one", choices=TOP_K, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_batch(arguments, TOP_K[arguments.one])))
        return
    commands = {name: [sys.executable, "-m", "benchmarks.study", *sys.argv[1:], "--one", name] for name in TOP_K}
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if arguments.device == "cpu" else {}
    outcomes = run_in_turns(commands, arguments.repeats, hidden)
    sizes = {key: getattr(arguments, key) for key in ("budgets", "seeds", "steps", "items", "jobs", "device")}
    settings = {**sizes, "top_k": TOP_K["cached teacher"], "cells": len(arguments.budgets) * len(arguments.seeds)}
    write_report("study", arguments.name or arguments.device, settings, contestants=outcomes)


def run_batch(arguments: argparse.Namespace, top_k: int) -> dict[str, float]:
    """Run the batch once in a new folder, and return its wall time, teacher tokens and scores."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "STUDYKIT_CACHE": f"{folder}/cache"}
        given = {
            "study": "ablation",
            "budget_examples": arguments.budgets,
            "seed": arguments.seeds,
            "steps": arguments.steps,
            "test_items": arguments.items,
            "teacher_top_k": top_k,
        }
        parameters = [part for name, value in given.items() for part in ("-p", f"{name}={json.dumps(value)}")]
        folders = ["--results", f"{folder}/results", "--notebooks", str(ROOT / "notebooks")]
        batch = ["batch", "quickstart", "--jobs", str(arguments.jobs), *folders, *parameters]
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", "from studykit.cli import main; main()", *batch],
            check=True,
            stdout=sys.stderr,
            env=environment,
            cwd=ROOT,
        )
        seconds = time.perf_counter() - started
        runs = results.load(Path(folder) / "results" / "ablation")
    distilled = runs[runs["method"] == "kd"]
    expected = len(arguments.budgets) * len(arguments.seeds)
    if len(distilled) != expected or (distilled["status"] != "done").any():
        raise RuntimeError(f"{expected} distilled runs were expected; {distilled['status'].value_counts().to_dict()}")
    tokens = sum(float(distilled[column].fillna(0).sum()) for column in _COUNTED if column in distilled)
    return {
        "seconds": seconds,
        "teacher_tokens": tokens,
        "train_s": float(distilled["train_s"].sum()),
        "exact_match": 100 * float(distilled["exact_match"].mean()),
        "nll": float(distilled["nll"].mean()),
    }


if __name__ == "__main__":
    main()
