"""Check every specification of a batch before it starts: `python -m studykit.batch.preflight < cells.json`.

Reads `{"jobs": 1, "cells": [{"notebook": path, "parameters": {...}}, ...]}`, builds the arms of each cell and pins
them, which checks names, options, tokenizers, files and budgets, and measures how fast they are. Prints the first fault
in one line and exits with 2; without one prints `{"lines": [...], "estimates": [...]}` and exits with 0: how much of
their budgets the runs train on, a line for each that differs, and what each cell will take.
A separate process, since it has to import torch.
"""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from studykit.batch.notebooks import arms_of
from studykit.errors import InputError
from studykit.executors._processes import end_with_parent
from studykit.spec import RunSpec

_FIGURES_S = 4.0
"""Seconds of a notebook beside its imports and its runs: its kernel's start, its figures, its end."""


@dataclass
class Checked:
    """What the specifications of a batch need, seeds apart.

    Attributes:
        needs: `studykit.study.estimate.Needs` by the canonical text of the specification without its seeds.
        lines: how much of its budget each run trains on.
        pin_s: seconds of the look-ups for one run.
        start_s: seconds of the imports.
    """

    needs: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    pin_s: float = 0.0
    start_s: float = 0.0


def check(cells: list[dict[str, Any]], jobs: int = 1) -> dict[str, Any]:
    """Pin every distinct specification, seeds apart, and estimate what the cells take.

    Raises:
        InputError: the first fault, or what cannot fit.
    """
    arms = [[RunSpec.parse(dict(arm)) for arm in _arms(Path(c["notebook"]), c["parameters"]).values()] for c in cells]
    roots = [cell["parameters"]["results"] for cell in cells]
    pairs = [(spec, root) for specs, root in zip(arms, roots, strict=True) for spec in specs]
    if not pairs:
        return {"lines": [], "estimates": []}
    checked = _pin(pairs, jobs)
    if any(_without_seeds(spec).canonical() not in checked.needs for spec, _ in pairs):
        return {"lines": list(dict.fromkeys(checked.lines)), "estimates": []}
    shared: dict[int, Any] = {}
    estimates = [
        _estimate(specs, cell["parameters"].get("keep", "full"), checked, shared)
        for specs, cell in zip(arms, cells, strict=True)
    ]
    _check_disks(estimates, roots, jobs)
    lines = list(dict.fromkeys(checked.lines))
    return {"lines": lines, "estimates": [estimate.as_dict() for estimate in estimates]}


def _pin(pairs: list[tuple[RunSpec, str]], jobs: int) -> Checked:
    """Pin specifications, each with its results folder; those of one folder share what is looked up."""
    from studykit.data import Inputs
    from studykit.study import pin  # imports torch
    from studykit.study.estimate import Needs, Shared, check_fits
    from studykit.study.rates import measure

    inputs, pinned = {root: Inputs(root) for _, root in pairs}, {}
    checked, started = Checked(start_s=time.time() - psutil.Process().create_time()), time.monotonic()
    for spec, root in pairs:
        plain = _without_seeds(spec)
        if (key := plain.canonical()) not in pinned:
            pinned[key] = pin(spec, inputs[root])
            checked.lines += pinned[key].data_lines
    checked.pin_s = (time.monotonic() - started) / len(pinned)
    for key, run in pinned.items():
        try:
            needs = Needs.of(run, measure(run))
        except InputError:
            raise
        except Exception as fault:  # a batch needs no estimate
            methods = " > ".join(stage.spec.method for stage in run.stages)
            checked.lines.append(f"no estimate for {methods}: {type(fault).__name__}: {fault}".partition("\n")[0])
            continue
        check_fits(run, needs, needs.estimate(Shared()).memory_bytes, jobs)
        checked.needs[key] = needs
    return checked


def _check_disks(estimates: list[Any], roots: list[str], jobs: int) -> None:
    """Refuse cells for which the disk with their results folder has no room."""
    from studykit.study.estimate import Estimate, check_disk

    for root in dict.fromkeys(roots):
        total = Estimate()
        for estimate in (estimate for estimate, place in zip(estimates, roots, strict=True) if place == root):
            total += estimate
        check_disk(total, Path(root), jobs)


def _estimate(specs: list[RunSpec], keep: str, checked: Checked, shared: dict[int, Any]) -> Any:
    """Return what a cell takes after the cells before it; the runs of another seed capture other sequences."""
    from studykit.study.estimate import Estimate, Shared

    total = Estimate(seconds=checked.start_s + _FIGURES_S + checked.pin_s * len(specs))
    for spec in specs:
        needs = checked.needs[_without_seeds(spec).canonical()]
        total += needs.estimate(shared.setdefault(spec.seed, Shared()), keep)
    return total


def _arms(notebook: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    try:
        return arms_of(notebook, parameters)
    except InputError:
        raise
    except Exception as fault:
        reason = f"{type(fault).__name__}: {fault}".partition("\n")[0]
        raise InputError(
            f"notebook {notebook.stem}: its arms cannot be built from these parameters ({reason})"
        ) from None


def _without_seeds(spec: RunSpec) -> RunSpec:
    stages = tuple(
        stage.model_copy(
            update={"data": stage.data.model_copy(update={"budget": stage.data.budget.model_copy(update={"seed": 0})})}
        )
        for stage in spec.stages
    )
    return spec.model_copy(update={"seed": 0, "stages": stages})


if __name__ == "__main__":
    end_with_parent()
    try:
        print(json.dumps(check(**json.load(sys.stdin))))
    except InputError as fault:
        print(fault)
        sys.exit(2)
