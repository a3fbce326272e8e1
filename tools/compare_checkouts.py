"""Run the same specifications in two checkouts and compare scores, losses and weights to the last digit, and times.

    python -m tools.compare_checkouts OLD NEW                       # sft, kd and gkd on 500 examples
    python -m tools.compare_checkouts OLD NEW --spec a.json b.json --repeats 5

OLD and NEW are folders that hold `studykit/`; both run with this interpreter, one after the other in turns (the order
changes with every turn), each in a process with results and cache in a new folder. Every run is compared with the first
one of OLD, so a checkout that does not repeat itself is seen as well. The exit code is 1 where anything differs.

Seconds per step are those between two lines of `metrics.jsonl`, without the first fifth of the steps. Old and new runs
of a turn make a pair: the ratio is the median over pairs of new / old. Specifications carry no hashes, so that a field
for them may have different names in both checkouts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

_RUN = """
import json, sys
from pathlib import Path
import studykit
from studykit import study
assert Path(studykit.__file__).is_relative_to(sys.argv[1]), f"imported {studykit.__file__}, not {sys.argv[1]}"
study.run(json.load(sys.stdin), study="compared", root=sys.argv[2])
"""

_DATA = {"source": "lexicon", "budget": {"examples": 500, "seed": 0}}
_STAGE = {"data": _DATA, "steps": 30, "batch_size": 64, "learning_rate": 4e-3, "max_length": 64}
_EVALUATION = {
    "data": {"source": "lexicon", "split": "test"},
    "items": 200,
    "max_new_tokens": 16,
    "batch_size": 100,
}
_SHARED = {"student": {"name": "lexicon/base-medium"}, "evaluation": _EVALUATION, "seed": 0}

SPECS: dict[str, dict[str, Any]] = {
    "sft": _SHARED | {"stages": [_STAGE | {"method": "sft"}]},
    "kd": _SHARED | {"stages": [_STAGE | {"method": "kd"}], "teacher": {"name": "lexicon/teacher-a", "top_k": 16}},
    "gkd": _SHARED | {"stages": [_STAGE | {"method": "gkd"}], "teacher": {"name": "lexicon/teacher-a"}},
}
"""The data-size study of the quickstart, made small."""


@dataclass(frozen=True)
class Outcome:
    """The numbers of one run.

    Attributes:
        scores: metrics of student and teacher, and counted costs, by name.
        losses: every number of `metrics.jsonl` but times, by line and name.
        weights: the trained model's tensors by name.
        step_s: seconds per step; None where no times were recorded.
    """

    scores: dict[str, float]
    losses: dict[str, float]
    weights: dict[str, torch.Tensor]
    step_s: float | None


def run_spec(checkout: Path, spec: Mapping[str, Any]) -> Outcome:
    """Run a specification with the code of a checkout, and return its numbers.

    Raises:
        RuntimeError: the run failed; with the last lines of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "STUDYKIT_CACHE": f"{folder}/cache"}
        done = subprocess.run(
            [sys.executable, "-c", _RUN, str(checkout), f"{folder}/results"],
            input=json.dumps(spec),
            capture_output=True,
            text=True,
            env=environment,
            cwd=folder,
        )
        if done.returncode:
            raise RuntimeError(f"a run in {checkout} failed:\n" + "\n".join(done.stderr.splitlines()[-15:]))
        return read_outcome(Path(folder) / "results")


def read_outcome(root: Path) -> Outcome:
    """Return the numbers of the only run below a results folder."""
    (run,) = root.glob("*/runs/*/")
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    for file in sorted(run.glob("evaluations/*/record.json")):  # until schema 3 a run's record had its scores
        measured = json.loads(file.read_text(encoding="utf-8"))
        record |= {name: measured.get(name) for name in ("metrics", "teacher_metrics")}
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    scores = _flatten({name: record.get(name) or {} for name in ("metrics", "teacher_metrics", "cost")})
    losses = _flatten({f"line {number}": line for number, line in enumerate(lines, 1)})
    weights: dict[str, torch.Tensor] = {}
    for file in sorted((run / "model").glob("*.safetensors")):
        weights |= load_file(file)
    return Outcome(scores, losses, weights, seconds_per_step(lines))


def _flatten(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the numbers of all groups by `group name`, without times and memory, which never repeat."""
    return {
        f"{group} {name}": value
        for group, values in groups.items()
        for name, value in values.items()
        if isinstance(value, int | float) and not name.endswith(("_s", "_gib"))
    }


def seconds_per_step(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the seconds per step after the first fifth of the lines.

    >>> seconds_per_step([{"step": step, "time_s": time_s} for step, time_s in enumerate([0.0, 9.0, 11.0, 13.0, 15.0])])
    2.0
    """
    timed = [line for line in lines if "time_s" in line and "step" in line]
    timed = timed[len(timed) // 5 :]
    steps = timed[-1]["step"] - timed[0]["step"] if timed else 0
    return (timed[-1]["time_s"] - timed[0]["time_s"]) / steps if steps else None


def list_differences(old: Outcome, new: Outcome) -> list[str]:
    """Return one line per number or tensor that differs, or that only one side has; none where all are equal."""
    found = []
    for kind in ("scores", "losses"):
        left, right = getattr(old, kind), getattr(new, kind)
        found += [f"{name}: only in one checkout" for name in sorted(left.keys() ^ right.keys())]
        found += [f"{n}: {left[n]!r} and {right[n]!r}" for n in left if n in right and left[n] != right[n]]
    found += [f"weights {name}: only in one checkout" for name in sorted(old.weights.keys() ^ new.weights.keys())]
    for name in sorted(old.weights.keys() & new.weights.keys()):
        a, b = old.weights[name], new.weights[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            found.append(f"weights {name}: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}")
        elif not torch.equal(a, b):
            found.append(f"weights {name}: up to {float((a.float() - b.float()).abs().max()):.3g} apart")
    return found


def compare(old: Path, new: Path, spec: Mapping[str, Any], repeats: int) -> tuple[list[str], list[tuple[float, float]]]:
    """Run a specification in both checkouts in turns.

    Returns:
        The differences to the first run of the old checkout, and the seconds per step of each pair of runs.
    """
    first: Outcome | None = None
    differences: dict[str, None] = {}
    pairs = []
    for turn in range(repeats):
        outcomes = {}
        for checkout in (old, new) if turn % 2 == 0 else (new, old):
            outcomes[checkout] = run_spec(checkout, spec)
        first = first or outcomes[old]
        for name, checkout in (("old", old), ("new", new)):
            found = list_differences(first, outcomes[checkout])
            differences |= dict.fromkeys(f"{name}, {line}" for line in found)
        if (a := outcomes[old].step_s) is not None and (b := outcomes[new].step_s) is not None:
            pairs.append((a, b))
    return list(differences), pairs


def format_times(pairs: Sequence[tuple[float, float]]) -> str:
    """Return the medians and their ratio in one line.

    >>> format_times([(0.1, 0.11), (0.2, 0.2)])
    'ms per step: old 150.00, new 155.00, new / old 1.050 (1.000 to 1.100 over 2 pairs)'
    """
    if not pairs:
        return "ms per step: not recorded"
    old, new = (1e3 * statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(b / a for a, b in pairs)
    spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f} over {len(pairs)} pairs"
    return f"ms per step: old {old:.2f}, new {new:.2f}, new / old {statistics.median(ratios):.3f} ({spread})"


def main() -> int:
    """Compare all specifications; return 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--spec", nargs="+", type=Path, help="JSON files instead of the default specifications")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each specification")
    arguments = parser.parse_args()
    specs = SPECS
    if arguments.spec:
        specs = {str(file): json.loads(file.read_text(encoding="utf-8")) for file in arguments.spec}
    differs = False
    for name, spec in specs.items():
        differences, pairs = compare(arguments.old.resolve(), arguments.new.resolve(), spec, arguments.repeats)
        print(f"{name}: {f'{len(differences)} differences' if differences else 'equal to the last digit'}")
        print("".join(f"    {line}\n" for line in differences[:20]), end="")
        print(f"    {format_times(pairs)}", flush=True)
        differs |= bool(differences)
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
