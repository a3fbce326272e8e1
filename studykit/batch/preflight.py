"""Check every specification of a batch before it starts: `python -m studykit.batch.preflight < cells.json`.

Reads `[{"notebook": path, "parameters": {...}}, ...]`, builds the arms of each and pins them, which checks names,
options, tokenizers, files and budgets. Prints the first fault in one line and exits with 2; without a fault prints how
much of its budget each run trains on, a line for each that differs, and exits with 0.
A separate process, since it has to import torch.
"""

import json
import sys
from pathlib import Path
from typing import Any

from studykit.batch.notebooks import arms_of
from studykit.errors import InputError
from studykit.spec import RunSpec


def check(cells: list[dict[str, Any]]) -> list[str]:
    """Pin every distinct specification, seeds apart; return how much of their budgets they train on, each line once.

    Raises:
        InputError: the first fault.
    """
    specs: dict[str, tuple[RunSpec, str]] = {}
    for cell in cells:
        for arm in _arms(Path(cell["notebook"]), cell["parameters"]).values():
            spec = RunSpec.parse(dict(arm))
            specs.setdefault(_without_seeds(spec).canonical(), (spec, cell["parameters"]["results"]))
    return list(dict.fromkeys(_pin(list(specs.values())))) if specs else []


def _pin(specs: list[tuple[RunSpec, str]]) -> list[str]:
    """Pin specifications, each with its results folder; those of one folder share what is looked up."""
    from studykit import study  # imports torch
    from studykit.data import Inputs

    inputs = {root: Inputs(root) for _, root in specs}
    return [line for spec, root in specs for line in study.pin(spec, inputs[root]).data_lines]


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
    try:
        for line in check(json.load(sys.stdin)):
            print(line)
    except InputError as fault:
        print(fault)
        sys.exit(2)
