"""Run the arms of a comparison side by side."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from studykit.data import Inputs
from studykit.errors import InputError
from studykit.results import Purpose
from studykit.results.layout import check_study
from studykit.results.report_to import chosen
from studykit.spec import RunSpec
from studykit.study.checks import check_single_process
from studykit.study.overlap import check_best_apart
from studykit.study.pin import pin
from studykit.study.progress import Show, showing
from studykit.study.run import run_resolved
from studykit.study.score import check_weights
from studykit.study.tune import TunedArms
from studykit.study.weights import check_keep
from studykit.training.resolved import ResolvedRun

T = TypeVar("T")


def compare(
    arms: Mapping[str, RunSpec | Mapping[str, Any]],
    *,
    study: str = "scratch",
    ablation: str = "",
    root: str | Path = "results",
    keep: str = "full",
    report_to: str | Sequence[str] | None = None,
    show: Show | None = None,
) -> pd.DataFrame:
    """Run all arms and return their rows with the arm's name in front; scores are those of the primary evaluation.

    Arms are to be compared, so they must share seed, student, number of optimizer steps and evaluations. Steps may
    differ where they were tuned, for all arms.

    Args:
        arms: specifications by name, as `arms` makes them, or `tune` with how their settings were chosen.
        study: name of the folder under `root` that the runs are written to.
        ablation: the question that the runs belong to; shown in tables.
        root: the results folder.
        keep: the weights that stay on disk, as in `run`.
        report_to: names of trackers, as in `run`.
        show: as in `run`.

    Raises:
        InputError: arms that differ in what must be shared, or anything wrong with one of them.
    """
    followers = chosen(report_to)
    check_single_process()
    specs = {arm: s if isinstance(s, RunSpec) else RunSpec.parse(dict(s)) for arm, s in arms.items()}
    for what, of in (
        ("seed", lambda s: s.seed),
        ("student", lambda s: s.student),
        ("evaluation", lambda s: [evaluation.eval_id for evaluation in s.evaluation]),
    ):
        _check_shared(specs, what, of)
    with showing(show) as show:
        show("checking models and data")
        runs = _pin_all(specs, Inputs(root))
        tunings = arms.records if isinstance(arms, TunedArms) else {}
        if not all(arm in tunings and "steps" in tunings[arm].space for arm in runs):
            _check_shared(
                runs, "number of optimizer steps", lambda run: sum(stage.spec.planned_steps for stage in run.stages)
            )
        for run in runs.values():
            check_weights(check_study(root, study), run)
            check_keep(keep, run, check_study(root, study))
            check_best_apart(run)
        rows = []
        for number, (arm, run) in enumerate(runs.items(), 1):
            told = _prefixed(show, f"{arm}, {number} of {len(runs)}")
            purpose = Purpose(ablation, arm, tuning=tunings.get(arm))
            row = run_resolved(run, study, root, purpose=purpose, keep=keep, report_to=followers, show=told)
            rows.append({"arm": arm} | row | {"arm": arm} | (tunings[arm].columns() if arm in tunings else {}))
    return pd.DataFrame(rows)


def _prefixed(show: Show, arm: str) -> Show:
    return lambda line: show(f"{arm}: {line}")


def _check_shared(arms: Mapping[str, T], what: str, of: Callable[[T], Any]) -> None:
    """Refuse arms that differ in what must be shared."""
    values = {arm: of(part) for arm, part in arms.items()}
    if any(value != first for value in values.values() for first in values.values()):
        raise InputError(f"arms {', '.join(arms)} must share their {what}, or their difference means nothing")


def _pin_all(specs: Mapping[str, RunSpec], inputs: Inputs) -> dict[str, ResolvedRun]:
    """Pin every arm before the first one trains."""
    return {arm: pin(spec, inputs) for arm, spec in specs.items()}
