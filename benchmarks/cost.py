"""Seconds and peak memory of the head against tokens, vocabulary and k, with a line fitted along each axis.

    python -m benchmarks.cost --repeats 3
    python -m benchmarks.cost --device cuda --tokens 2048 4096 8192 16384

One forward and backward pass of `head_loss` with the forward KL, trained head, random bf16 states; the teacher's signal
is made from hidden states or from its k likeliest tokens. One axis varies, the others have their first value.
Slope, value at zero and R² of each line are printed and written to results/benchmarks/cost-<device>.json.
"""

import argparse
import json
import sys
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.measurement import call_in_turns, measure_work, run_in_turns, write_report
from studykit.head import Labels, Objective, OutputHead, head_loss
from studykit.losses import get_loss
from studykit.teacher import TeacherSignal

_STUDENT, _TEACHER = 896, 1536
"""Hidden sizes: Qwen2.5-0.5B from 1.5B."""

AXES = {"hidden": ("tokens", "vocabulary"), "top_k": ("tokens", "vocabulary", "k")}


def main() -> None:
    """Measure every point in turns, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", nargs="+", type=int, default=[512, 1024, 2048, 4096])
    parser.add_argument("--vocabulary", nargs="+", type=int, default=[16_000, 32_000, 64_000, 128_000])
    parser.add_argument("--k", nargs="+", type=int, default=[16, 64, 256, 1024])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--name", default=None, help="of the report, instead of <device>")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(device="cpu", **json.loads(arguments.one))))
        return
    first = {axis: getattr(arguments, axis)[0] for axis in AXES["top_k"]}
    points = list_points(first, arguments)
    names = [json.dumps(point) for point in points]
    if arguments.device == "cuda":
        works = {n: partial(measure, device="cuda", **point) for n, point in zip(names, points, strict=True)}
        outcomes = call_in_turns(works, arguments.repeats)
    else:
        outcomes = run_in_turns(
            {name: [sys.executable, "-m", "benchmarks.cost", "--one", name] for name in names}, arguments.repeats
        )
    measured = [point | outcomes[json.dumps(point)] for point in points]
    if any("failed" in point for point in measured):
        sys.exit("a point failed: nothing is written")
    lines = [
        line for signal, axes in AXES.items() for axis in axes for line in fit_lines(measured, first, signal, axis)
    ]
    for line in lines:
        print(
            f"{line['signal']:8} {line['axis']:10} {line['figure']:8} {line['at_zero']:.4g} + {line['slope']:.4g} per "
            f"unit, R² {line['r2']:.4f}"
        )
    settings = {"device": arguments.device, "hidden": _STUDENT, "teacher_hidden": _TEACHER, "dtype": "bfloat16"}
    settings |= {**first, "repeats": arguments.repeats}
    write_report("cost", arguments.name or arguments.device, settings, points=measured, fits=lines)


def list_points(first: dict[str, int], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the points along each axis; the axes share the point of all first values."""
    points: list[dict[str, Any]] = []
    for signal, axes in AXES.items():
        for axis in axes:
            for value in getattr(arguments, axis):
                point = {"signal": signal, **first, axis: value}
                points += [] if point in points else [point]
    return points


def measure(signal: str, tokens: int, vocabulary: int, k: int, device: str) -> dict[str, float]:
    """Return seconds and peak memory of one pass."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.randn(*size, generator=generator, device=device, dtype=dtype) * size[-1] ** -0.25

    hidden, weight = normal(tokens, _STUDENT).requires_grad_(), normal(vocabulary, _STUDENT).requires_grad_()
    target = torch.randint(vocabulary, (tokens,), generator=generator, device=device)
    if signal == "hidden":
        teacher = TeacherSignal.from_hidden(normal(tokens, _TEACHER), normal(vocabulary, _TEACHER))
    else:
        ids = (target[:, None] + torch.arange(k, device=device)) % vocabulary
        both = normal(tokens, k + 1, dtype=torch.float32).log_softmax(-1)
        teacher = TeacherSignal.from_top_k(ids, both[:, :-1], both[:, -1:])
    labels, objective = Labels(target), Objective(get_loss("forward_kl"))

    def work() -> None:
        hidden.grad = weight.grad = None
        head_loss(hidden, OutputHead(weight), teacher, labels, objective, denominator=tokens)[0].backward()

    return measure_work(work, device)


def fit_lines(points: list[dict[str, Any]], first: dict[str, int], signal: str, axis: str) -> list[dict[str, Any]]:
    """Return the least-squares lines of seconds and memory along one axis; none where a point is missing."""
    fixed = {name: value for name, value in first.items() if name != axis}
    measured = [p for p in points if p["signal"] == signal and "medians" in p]
    along = [p for p in measured if all(p[name] == value for name, value in fixed.items())]
    if len(along) < 3:
        return []
    x = np.array([p[axis] for p in along], dtype=float)
    lines = []
    for figure in ("seconds", "gib"):
        y = np.array([p["medians"][figure] for p in along])
        slope, zero = np.polyfit(x, y, 1)
        residual, total = ((y - zero - slope * x) ** 2).sum(), ((y - y.mean()) ** 2).sum()
        r2 = float(1 - residual / total) if total > 0 else 1.0
        line = {"signal": signal, "axis": axis, "figure": figure, **fixed}
        lines.append(line | {"slope": float(slope), "at_zero": float(zero), "r2": r2})
    return lines


if __name__ == "__main__":
    main()
