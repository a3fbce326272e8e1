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
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from studykit.batch.notebooks import arms_of
from studykit.errors import InputError
from studykit.executors._processes import end_with_parent
from studykit.results import is_done
from studykit.results.environment import processes_wanted
from studykit.spec import RunSpec

_FIGURES_S = 4.0
"""Seconds of a notebook beside its imports and its runs: its kernel's start, its figures, its end."""


@dataclass(frozen=True)
class Planned:
    """What a cell will run.

    Attributes:
        arms: specifications of its arms.
        tuning: the `TuningPlan` of its arms; None where nothing is tuned.
        root: the results folder.
        study: the folder of its study.
        keep: the weights that stay on disk.
    """

    arms: list[RunSpec]
    tuning: Any
    root: str
    study: Path
    keep: str

    @cached_property
    def trials(self) -> list[RunSpec]:
        """Specifications of the trials, before a grid is widened."""
        return [] if self.tuning is None else [spec for _, _, spec in self.tuning.specs()]

    @cached_property
    def further_trials(self) -> list[RunSpec]:
        """Specifications of the trials that widening the grids adds at most."""
        return [] if self.tuning is None else list(self.tuning.further_specs())


@dataclass
class Checked:
    """What the specifications of a batch need, seeds apart.

    Attributes:
        needs: `studykit.study.estimate.Needs` by the key of a specification.
        pinned: the pinned specification by the same key.
        lines: how much of its budget each run trains on.
        pin_s: seconds of the look-ups for one run.
        start_s: seconds of the imports.
    """

    needs: dict[str, Any] = field(default_factory=dict)
    pinned: dict[str, RunSpec] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    pin_s: float = 0.0
    start_s: float = 0.0


def check(cells: list[dict[str, Any]], jobs: int = 1) -> dict[str, Any]:
    """Pin every distinct specification, seeds apart, and estimate what the cells take.

    Raises:
        InputError: the first fault, or what cannot fit.
    """
    planned = [_plan(Path(cell["notebook"]), cell["parameters"]) for cell in cells]
    if not any(cell.arms for cell in planned):
        return {"lines": [], "estimates": []}
    checked = _pin(planned, jobs)
    checked.lines += [cell.tuning.line for cell in planned if cell.tuning is not None]
    lines = list(dict.fromkeys(checked.lines))
    if any(_key(spec) not in checked.needs for cell in planned for spec in (*cell.arms, *cell.trials)):
        return {"lines": lines, "estimates": []}
    shared: dict[int, Any] = {}
    known: set[Path] = set()
    estimates = [_estimate(cell, checked, shared, known) for cell in planned]
    _check_disks(estimates, [cell.root for cell in planned], jobs)
    return {"lines": lines, "estimates": [estimate.as_dict() for estimate in estimates]}


def _plan(notebook: Path, parameters: dict[str, Any]) -> Planned:
    """Build what a cell will run from its parameters: the arms, and where they are tuned the trials."""
    arms, tuning = _arms(notebook, parameters), None
    if arms and parameters.get("tune"):
        from studykit.study import tuning as tuning_options  # imports torch
        from studykit.study.tuning_plan import plan_tuning

        options = tuning_options(parameters)
        options = {name: value for name, value in options.items() if name not in ("study", "root")}
        tuning = plan_tuning(arms, parameters["tune"], **options)
    specs = [RunSpec.parse(dict(arm)) for arm in arms.values()]
    root = parameters.get("results", "results")
    return Planned(specs, tuning, root, Path(root) / parameters.get("study", ""), parameters.get("keep", "full"))


def _pin(planned: list[Planned], jobs: int) -> Checked:
    """Pin specifications, each with its results folder; those of one folder share what is looked up."""
    from studykit.data import Inputs
    from studykit.study import pin  # imports torch
    from studykit.training.ranks import check_shares

    processes = processes_wanted()
    inputs, pinned = {cell.root: Inputs(cell.root) for cell in planned}, {}
    checked, started = Checked(start_s=time.time() - psutil.Process().create_time()), time.monotonic()
    for cell in planned:
        for spec in (*cell.arms, *cell.trials):
            if (key := _key(spec)) not in pinned:
                pinned[key] = pin(_without_seeds(spec), inputs[cell.root])
                check_shares(pinned[key], processes)
                checked.lines += pinned[key].data_lines
                checked.pinned[key] = pinned[key].spec
    _check_apart(planned, inputs)
    checked.pin_s = (time.monotonic() - started) / len(pinned)
    _measure(checked, pinned, jobs)
    further = {}
    for cell in planned:
        for spec in cell.further_trials:
            if (key := _key(spec)) not in pinned | further:
                with suppress(InputError):  # a value that no run can have, which the batch may never come to
                    further[key] = pin(_without_seeds(spec), inputs[cell.root])
                    checked.pinned[key] = further[key].spec
    _measure(checked, further, None)
    return checked


def _measure(checked: Checked, pinned: dict[str, Any], jobs: int | None) -> None:
    """Find out what pinned specifications need, and refuse those that do not fit, if the batch trains them for sure.

    Args:
        checked: gets what is found.
        pinned: specifications by key.
        jobs: notebooks at a time; None for what a batch may not come to.
    """
    from studykit.study.estimate import Needs, Shared, check_fits
    from studykit.study.rates import measure

    for key, run in pinned.items():
        try:
            needs = Needs.of(run, measure(run))
        except InputError:
            if jobs is None:
                continue
            raise
        except Exception as fault:  # a batch needs no estimate
            methods = " > ".join(stage.spec.method for stage in run.stages)
            checked.lines.append(f"no estimate for {methods}: {type(fault).__name__}: {fault}".partition("\n")[0])
            continue
        if jobs is not None:
            check_fits(run, needs, needs.estimate(Shared()).memory_bytes, jobs)
        checked.needs[key] = needs


def _check_apart(planned: list[Planned], inputs: dict[str, Any]) -> None:
    """Refuse validation items that are held-out items."""
    from studykit.study import pin
    from studykit.study.trials import check_apart

    found = set()
    for cell in (cell for cell in planned if cell.tuning is not None):
        arm, trial = cell.tuning.first_arm, next(iter(cell.trials))
        pair = (*(evaluation.eval_id for evaluation in arm.evaluation), trial.evaluation[0].eval_id)
        if pair not in found:
            found.add(pair)
            check_apart(arm, pin(trial, inputs[cell.root]), inputs[cell.root])


def _check_disks(estimates: list[Any], roots: list[str], jobs: int) -> None:
    """Refuse cells for which the disk with their results folder has no room."""
    from studykit.study.estimate import Estimate, check_disk

    for root in dict.fromkeys(roots):
        total = Estimate()
        for estimate in (estimate for estimate, place in zip(estimates, roots, strict=True) if place == root):
            total += estimate
        check_disk(total, Path(root), jobs)


def _estimate(cell: Planned, checked: Checked, shared: dict[int, Any], known: set[Path]) -> Any:
    """Return what a cell takes after the cells before it; the runs of another seed capture other sequences.

    Args:
        cell: what it runs.
        checked: what the specifications need.
        shared: what earlier runs leave, by seed.
        known: folders of runs that earlier cells train; those of this one are added.
    """
    from studykit.study.estimate import Estimate, Shared

    total = Estimate(seconds=checked.start_s + _FIGURES_S + checked.pin_s * (len(cell.arms) + len(cell.trials)))
    for spec, is_trial in [(spec, False) for spec in cell.arms] + [(spec, True) for spec in cell.trials]:
        folder = _folder(cell, checked, spec)
        is_untuned = cell.tuning is not None and not is_trial  # which values it will have is not known yet
        if not is_untuned and (folder in known or is_done(folder)):
            total += Estimate(runs_there=1)
            continue
        known |= set() if is_untuned else {folder}
        needs = checked.needs[_key(spec)].estimate(
            shared.setdefault(spec.seed, Shared()), "none" if is_trial else cell.keep
        )
        total += needs + (Estimate(trials=1, tuning_s=needs.seconds) if is_trial else Estimate(runs=1))
    return total + _further(cell, checked, shared, known)


def _further(cell: Planned, checked: Checked, shared: dict[int, Any], known: set[Path]) -> Any:
    """Return the trials that widening the grids of a cell adds at most; arguments as those of `_estimate`."""
    from studykit.study.estimate import Estimate, Shared

    total = Estimate()
    for spec in (spec for spec in cell.further_trials if _key(spec) in checked.needs):
        folder = _folder(cell, checked, spec)
        if folder not in known and not is_done(folder):
            needs = checked.needs[_key(spec)].estimate(shared.setdefault(spec.seed, Shared()), "none")
            total += Estimate(further_trials=1, further_s=needs.seconds)
            known.add(folder)
    return total


def _folder(cell: Planned, checked: Checked, spec: RunSpec) -> Path:
    """Return where a run of a cell is, or will be."""
    return cell.study / "runs" / with_settings(checked.pinned[_key(spec)], spec).run_id


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


def _key(spec: RunSpec) -> str:
    """Return a text that is the same for specifications which take as long: it leaves out seeds and rates."""
    stages = tuple(stage.model_copy(update={"learning_rate": 1.0}) for stage in spec.stages)
    return _without_seeds(spec.model_copy(update={"stages": stages})).canonical()


def with_settings(pinned: RunSpec, spec: RunSpec) -> RunSpec:
    """Return a pinned specification with the seeds and learning rates of another one that has the same key."""
    stages = tuple(
        known.model_copy(
            update={
                "learning_rate": stage.learning_rate,
                "data": known.data.model_copy(
                    update={"budget": known.data.budget.model_copy(update={"seed": stage.data.budget.seed})}
                ),
            }
        )
        for known, stage in zip(pinned.stages, spec.stages, strict=True)
    )
    return pinned.model_copy(update={"stages": stages, "seed": spec.seed})


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
