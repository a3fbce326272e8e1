"""What a tuning will train: the grids of all arms, the seeds, and the items that trials are scored on.

    plan = plan_tuning(arms, {"learning_rate": [0.002, 0.004]}, seeds=[1000])
    [(arm, point, spec), *others] = plan.specs()

No model or data is looked up here.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from studykit.errors import InputError, shown, unknown
from studykit.methods import get_method
from studykit.scorers import name_of
from studykit.spec import MAX_SEED, Evaluation, RunSpec
from studykit.study.space import Grid, Point, apply, grids_of, points, widest
from studykit.study.trials import trial_spec, validation_of

SPLIT, ITEMS = "validation", 500
"""The split that validation items are drawn from, and their number, where none is given."""


@dataclass(frozen=True)
class TuningPlan:
    """What a tuning will train.

    Attributes:
        arms: plain specifications by name, without tuning.
        grids: by arm; all have the same number of points.
        seeds: of the trials.
        metric: by which the best one is chosen.
        evaluation: on the validation items.
        tuning: 12 hex digits of the hash of the space, of the arms' names, and of how trials are scored: the same for
            all seeds and budgets of a study.
    """

    arms: Mapping[str, Mapping[str, Any]]
    grids: Mapping[str, Grid]
    seeds: Sequence[int]
    metric: str
    evaluation: Evaluation
    tuning: str

    def points(self, arm: str) -> list[Point]:
        """Return the points of an arm's grid."""
        return points(self.grids[arm])

    def specs(self) -> Iterator[tuple[str, Point, RunSpec]]:
        """Yield arm, point and specification of every run: one for each point and seed."""
        for arm, plain in self.arms.items():
            for point in self.points(arm):
                for seed in self.seeds:
                    yield arm, point, trial_spec(apply(plain, self.grids[arm], point), seed, self.evaluation)

    def further_specs(self) -> Iterator[RunSpec]:
        """Yield the specification of every run that can follow at most, where best values are at edges of the grids."""
        wider = replace(self, grids=widest(self.arms, self.grids))
        known = {arm: [repr(point) for point in self.points(arm)] for arm in self.arms}
        for arm, point, spec in wider.specs():
            if repr(point) not in known[arm]:
                yield spec

    @property
    def line(self) -> str:
        """How many trials there are, in words."""
        each = len(self.points(next(iter(self.arms))))
        return f"tuning: {each} trials for each of {len(self.arms)} arms, and more where a grid is widened"

    @property
    def first_arm(self) -> RunSpec:
        """The first arm, whose evaluations all arms have."""
        return RunSpec.parse(dict(next(iter(self.arms.values()))))


def plan_tuning(
    arms: Mapping[str, Mapping[str, Any]],
    space: Mapping[str, Any],
    seeds: Sequence[int] = (1000,),
    metric: str | None = None,
    validation: Mapping[str, Any] | None = None,
) -> TuningPlan:
    """Return what `tune` trains with the same arguments.

    Raises:
        InputError: anything wrong with arms, space, seeds, metric or the choice of validation items.
    """
    specs = {arm: RunSpec.parse(dict(plain)) for arm, plain in arms.items()}
    if not specs:
        raise InputError("tune: there are no arms")
    _check_seeds(seeds, specs)
    evaluation = _evaluation(specs, dict(validation or {}))
    names = [name_of(scorer) for scorer in evaluation.scorers]
    metric = names[0] if metric is None else metric
    if metric not in names:
        raise InputError(f"tune: metric: {unknown('scorer of the evaluation', metric, names)}")
    grids = grids_of(arms, space)
    for arm, grid in grids.items():
        for point in points(grid):
            _check_methods(RunSpec.parse(apply(arms[arm], grid, point)))
    identity = [space, sorted(arms), list(seeds), metric, evaluation.model_dump(mode="json", exclude={"batch_size"})]
    tuning = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    return TuningPlan(arms, grids, tuple(seeds), metric, evaluation, tuning)


def _check_methods(spec: RunSpec) -> None:
    """Refuse options that a method does not have, and values outside their range."""
    for stage in spec.stages:
        get_method(stage.method, **stage.method_options)


def _check_seeds(seeds: Sequence[int], specs: Mapping[str, RunSpec]) -> None:
    """Refuse what is no seed, a seed that is listed twice, and those of an arm."""
    if not isinstance(seeds, Sequence) or not seeds:
        raise InputError(f"tune: seeds is a list of at least one seed, received {shown(seeds)}")
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
            raise InputError(f"tune: a seed is a whole number from 0 to {MAX_SEED}, received {shown(seed)}")
        if list(seeds).count(seed) > 1:
            raise InputError(f"tune: seed {seed} is listed twice")
        for arm in (arm for arm, spec in specs.items() if spec.seed == seed):
            raise InputError(
                f"tune: seed {seed} is the seed of arm {arm}, so that its tuning would see the data that it is "
                "reported on: take others for the trials, such as tune_seeds=[1000]"
            )


def _evaluation(specs: Mapping[str, RunSpec], validation: dict[str, Any]) -> Evaluation:
    """Return the evaluation of the trials: the first one of the arms on validation items."""
    for name in (name for name in validation if name not in ("split", "items")):
        raise InputError(f"tune: validation: {unknown('name', name, ('split', 'items'))}")
    for arm in (arm for arm, spec in specs.items() if not spec.evaluation):
        raise InputError(f"tune: arm {arm} has no evaluation, so that nothing says which trial is best")
    first, *others = [spec.evaluation[0] for spec in specs.values()]
    if any(other.eval_id != first.eval_id for other in others):
        raise InputError("tune: arms must share their evaluation, or their trials cannot be compared")
    split, items = validation.get("split", SPLIT), validation.get("items", ITEMS)
    if not isinstance(split, str) or not (items is None or (type(items) is int and items > 0)):
        raise InputError(f"tune: validation is a split and a number of items, received {shown(validation)}")
    return validation_of(first, split, items)
