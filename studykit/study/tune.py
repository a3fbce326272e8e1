"""Tune the arms of a comparison equally: the same number of trials for each, on validation items, with other seeds.

    tuned = tune(arms(["sft", "kd"], **values), {"learning_rate": [0.002, 0.004, 0.008]}, study="lexicon")
    runs = compare(tuned, study="lexicon")           # with the best values; all trials are kept beside the runs

Where the best trial of any arm has the first or last value of its axis, the grid is widened by one value in that
direction, once, for all arms alike; if the best one is at the edge again, the table says so. The notation of a space is
that of `studykit.study.space`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from studykit.data import Inputs
from studykit.errors import Failure
from studykit.results import Trial, TuningRecord
from studykit.results.layout import check_study
from studykit.scorers import metric as metric_of
from studykit.study.pin import pin
from studykit.study.progress import Show, showing
from studykit.study.space import Point, apply, chosen_values, edges, widen
from studykit.study.trials import Job, check_apart, measured, run_jobs
from studykit.study.tuning_plan import TuningPlan, plan_tuning

_LOG = logging.getLogger(__name__)
_NLL = "nll"
_SIDES = {-1: "smallest", 1: "largest"}


class TunedArms(dict[str, Any]):
    """Specifications by the name of the arm, as `compare` takes them, with how their settings were chosen.

    Attributes:
        records: of the tuning, by arm; empty where nothing was tuned.
    """

    def __init__(self, arms: Mapping[str, Any], records: Mapping[str, TuningRecord] | None = None):
        super().__init__(arms)
        self.records = dict(records or {})

    @property
    def table(self) -> pd.DataFrame:
        """All trials, one a row: arm, values, scores on the validation items, status, and whether it was chosen."""
        rows = [
            {
                "arm": arm,
                **trial.values,
                **trial.scores,
                "status": trial.status,
                "chosen": trial.values == record.chosen,
            }
            for arm, record in self.records.items()
            for trial in record.trials
        ]
        return pd.DataFrame(rows)


def tuning(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a notebook's names that `tune` takes, under its own: `tune(arms, space, **tuning(globals()))`.

    >>> tuning({"study": "s", "results": "../results", "tune_seeds": [1000], "primary_metric": "nll", "seed": 3})
    {'study': 's', 'root': '../results', 'seeds': [1000], 'metric': 'nll'}
    """
    taken = {"study": "study", "root": "results", "seeds": "tune_seeds", "metric": "primary_metric"}
    validation = {"split": "tune_split", "items": "tune_items"}
    given = {own: names[name] for own, name in taken.items() if name in names}
    held_out = {own: names[name] for own, name in validation.items() if name in names}
    return given | ({"validation": held_out} if held_out else {})


def tune(
    arms: Mapping[str, Mapping[str, Any]],
    space: Mapping[str, Any],
    *,
    study: str = "scratch",
    root: str | Path = "results",
    seeds: Sequence[int] = (1000,),
    metric: str | None = None,
    validation: Mapping[str, Any] | None = None,
    show: Show | None = None,
) -> TunedArms:
    """Return the arms with the settings of their best trials.

    Args:
        arms: plain specifications by name, as `arms` makes them.
        space: values or factors by name, see `studykit.study.space`; an empty one leaves the arms as they are.
        study: name of the folder under `root` that the trials are written to: that of the comparison.
        root: the results folder.
        seeds: of the trials, whose scores are averaged; none of them may be the seed of an arm.
        metric: a scorer's name, by which the best trial is chosen; None for the first one. NLL decides between equals.
        validation: the items that trials are scored on: `split`, by default "validation", and `items`, by default 500,
            None for the whole split.
        show: as in `run`.

    Raises:
        InputError: anything wrong with the space, the validation items or a trial, before anything is trained.
        Failure: all trials of an arm diverged.
    """
    if not space:
        return TunedArms(arms)
    plan, folder = plan_tuning(arms, space, seeds, metric, validation), check_study(root, study)
    with showing(show) as show:
        show("checking models and data")
        inputs = Inputs(root)
        jobs = pin_trials(plan, inputs)
        run_jobs(jobs, folder, plan.tuning, show)
        trials = {arm: _read(plan, arm, jobs, folder) for arm in plan.arms}
        best = {arm: _best(plan, arm, found) for arm, found in trials.items()}
        wider = replace(plan, grids=widen(plan.arms, plan.grids, best))
        if wider.grids != plan.grids:
            _LOG.warning("tuning: %s", _say_widened(plan, wider, best))
            jobs = pin_trials(wider, inputs)
            run_jobs(jobs, folder, plan.tuning, show)
            trials = {arm: _read(wider, arm, jobs, folder) for arm in plan.arms}
            best = {arm: _best(plan, arm, found) for arm, found in trials.items()}
    chosen = {arm: apply(spec, wider.grids[arm], best[arm]) for arm, spec in plan.arms.items()}
    return TunedArms(chosen, {arm: _record(plan, wider, arm, best[arm], trials[arm]) for arm in plan.arms})


def pin_trials(plan: TuningPlan, inputs: Inputs) -> list[Job]:
    """Return the runs of all trials, pinned and checked.

    Args:
        plan: of the tuning.
        inputs: looks up models and data.

    Raises:
        InputError: anything wrong with one of them, or validation items that are held-out items.
    """
    jobs = []
    for arm, point, spec in plan.specs():
        jobs.append(Job(pin(spec, inputs), arm, point))
        if len(jobs) == 1:
            check_apart(plan.first_arm, jobs[0].run, inputs)
    return jobs


def _read(plan: TuningPlan, arm: str, jobs: Sequence[Job], folder: Path) -> list[tuple[Point, Trial]]:
    """Return the finished trials of an arm by the points of its grid."""
    found: dict[str, list[Job]] = {}
    for job in (job for job in jobs if job.arm == arm):
        found.setdefault(repr(job.point), []).append(job)
    trials = []
    for same in found.values():
        runs = [measured(folder / "runs" / job.run.run_id, job.run.evaluations[0].spec.eval_id) for job in same]
        scores, costs = [part for part, _ in runs if part is not None], [cost for _, cost in runs]
        is_done = len(scores) == len(runs)
        trial = Trial(
            values=chosen_values(apply(plan.arms[arm], plan.grids[arm], same[0].point), plan.grids[arm]),
            runs=tuple(job.run.run_id for job in same),
            status="done" if is_done else "diverged",
            scores={name: sum(part[name] for part in scores) / len(scores) for name in scores[0]} if is_done else {},
            cost={
                name: sum(cost.get(name, 0.0) for cost in costs) for name in dict.fromkeys(n for c in costs for n in c)
            },
        )
        trials.append((same[0].point, trial))
    return trials


def _best(plan: TuningPlan, arm: str, trials: Sequence[tuple[Point, Trial]]) -> Point:
    """Return the point with the best score; of equal ones that with the lowest NLL, and of these the first."""
    sign = 1 if metric_of(plan.metric).higher_is_better else -1
    done = [(point, trial) for point, trial in trials if trial.status == "done" and plan.metric in trial.scores]
    if not done:
        raise Failure(
            f"tuning: all {len(trials)} trials of arm {arm} diverged, or none has the metric {plan.metric}: try "
            "smaller learning rates"
        )
    return max(done, key=lambda pair: (sign * pair[1].scores[plan.metric], -pair[1].scores.get(_NLL, 0.0)))[0]


def _record(
    plan: TuningPlan, wider: TuningPlan, arm: str, best: Point, trials: Sequence[tuple[Point, Trial]]
) -> TuningRecord:
    """Return what is kept of an arm's tuning."""
    before = {repr(point) for point in plan.points(arm)}
    named = [trial.model_copy(update={"widened": repr(point) not in before}) for point, trial in trials]
    return TuningRecord(
        tuning=plan.tuning,
        arm=arm,
        space={axis.name: axis.plain() for axis in plan.grids[arm]},
        seeds=tuple(plan.seeds),
        metric=plan.metric,
        evaluation=plan.evaluation,
        chosen=next(trial.values for point, trial in trials if point == best),
        at_edge=tuple(edges(wider.grids[arm], best)),
        widened=_widened(plan, wider, arm),
        trials=tuple(named),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _widened(plan: TuningPlan, wider: TuningPlan, arm: str) -> tuple[str, ...]:
    """Return the names whose values became more."""
    pairs = zip(plan.grids[arm], wider.grids[arm], strict=True)
    return tuple(axis.name for axis, now in pairs if axis.values != now.values)


def _say_widened(plan: TuningPlan, wider: TuningPlan, best: Mapping[str, Point]) -> str:
    found = [
        f"{arm} is best at the {_SIDES[side]} {name} ({best[arm][name]:g})"
        for arm, grid in plan.grids.items()
        for name, side in edges(grid, best[arm]).items()
    ]
    arm = next(iter(plan.arms))
    names = ", ".join(_widened(plan, wider, arm))
    before, now = (len(one.points(arm)) for one in (plan, wider))
    return f"{'; '.join(found)}: the grid of {names} was widened once, for all arms alike ({before} trials, now {now})"
