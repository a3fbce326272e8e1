"""Run the arms of a comparison side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from studykit.data import Inputs
from studykit.errors import InputError
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.study.run import run_resolved
from studykit.training.resolved import ResolvedRun


def compare(
    arms: Mapping[str, RunSpec | Mapping[str, Any]],
    *,
    study: str = "scratch",
    ablation: str = "",
    root: str | Path = "results",
) -> pd.DataFrame:
    """Run all arms and return their rows with the arm's name in front.

    Arms are to be compared, so they must share seed, student, number of optimizer steps and evaluation.

    Raises:
        InputError: arms that differ in what must be shared, or anything wrong with one of them.
    """
    specs = {arm: s if isinstance(s, RunSpec) else RunSpec.parse(dict(s)) for arm, s in arms.items()}
    for what, of in (
        ("seed", lambda s: s.seed),
        ("student", lambda s: s.student),
        ("number of optimizer steps", lambda s: sum(stage.steps for stage in s.stages)),
        ("evaluation", lambda s: s.evaluation),
    ):
        if any(of(s) != of(first) for s in specs.values() for first in specs.values()):
            raise InputError(f"arms {', '.join(specs)} must share their {what}, or their difference means nothing")
    runs = _pin_all(specs, Inputs(root))
    return pd.DataFrame([{"arm": arm, **run_resolved(run, study, ablation, root)} for arm, run in runs.items()])


def _pin_all(specs: Mapping[str, RunSpec], inputs: Inputs) -> dict[str, ResolvedRun]:
    """Pin every arm before the first one trains."""
    return {arm: pin(spec, inputs) for arm, spec in specs.items()}
