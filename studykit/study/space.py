"""The space of a tuning: which values are tried for which arm, as one grid for each arm, all of the same size.

    {"learning_rate": [0.002, 0.004, 0.008]}                       # values
    {"learning_rate": {"times": [0.5, 1, 2]}}                      # factors of the arm's own value
    {"steps": [300, 600], "sft": {"learning_rate": [0.002, 0.004]}, "kd": {"kd_ratio": [0.5, 1]}}

A list holds values, `{"times": [...]}` factors of what the arm has without tuning. A name is a setting of the stages
(`TUNABLE`) or an option of the methods, which counts in all stages whose method has it. Under the name of an arm stands
what holds for this arm alone, beside or instead of what holds for all.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from studykit.errors import InputError, shown, unknown
from studykit.methods import METHODS, get_method
from studykit.spec import RunSpec, Stage
from studykit.study.arm_stages import round_significant

TUNABLE = (
    "learning_rate",
    "steps",
    "batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "warmup_ratio",
    "weight_decay",
    "max_grad_norm",
)
"""Settings of a stage that a space may hold besides options of methods. `steps` are those of all stages together."""

TIMES = "times"

Arm = Mapping[str, Any]
"""The plain specification of an arm."""

Point = dict[str, Any]
"""A value, or factor, by the name of each axis."""


@dataclass(frozen=True)
class Axis:
    """The values of one name.

    Attributes:
        name: of a setting or option.
        values: as they were given.
        times: whether they are factors.
    """

    name: str
    values: tuple[Any, ...]
    times: bool = False

    @property
    def is_ordered(self) -> bool:
        """Whether it has a first and a last value: two numbers or more."""
        return len(self.values) > 1 and all(_is_number(value) for value in self.values)

    def edge(self, value: Any) -> int:
        """Return -1 for the smallest value, 1 for the largest, 0 for one between them."""
        if not self.is_ordered:
            return 0
        return (value == max(self.values)) - (value == min(self.values))

    def beyond(self, side: int) -> Any:
        """Return the value that continues the axis: by the last ratio, or by the last difference where one is not
        positive.

        >>> Axis("learning_rate", (0.001, 0.002, 0.006)).beyond(1), Axis("beta", (0.0, 0.5)).beyond(1)
        (0.018, 1.0)
        """
        *_, before, last = sorted(self.values, reverse=side < 0)
        new = round_significant(last * last / before if min(self.values) > 0 else 2 * last - before)
        return int(new) if all(isinstance(value, int) for value in self.values) and new == int(new) else new

    def plain(self) -> Any:
        """Return it in the notation of a space."""
        return {TIMES: list(self.values)} if self.times else list(self.values)


Grid = tuple[Axis, ...]


def grids_of(arms: Mapping[str, Arm], space: Mapping[str, Any]) -> dict[str, Grid]:
    """Return the grid of every arm.

    Raises:
        InputError: an unknown name, no values, or arms with different numbers of trials.
    """
    own = {name: part for name, part in space.items() if name in arms}
    for name in (name for name in own if name in _known(arms)):
        raise InputError(f"tune: {name!r} is an arm and a setting: give the arm another name")
    shared = {name: values for name, values in space.items() if name not in own}
    for name, part in own.items():
        if not isinstance(part, Mapping):
            raise InputError(f"tune: {name}: what holds for one arm is a mapping, received {shown(part)}")
    _check_names(arms, shared, own)
    grids = {name: _grid(arm, shared | dict(own.get(name, {}))) for name, arm in arms.items()}
    _check_sizes(grids, shared, arms)
    return grids


def points(grid: Grid) -> list[Point]:
    """Return all points of a grid, the first axis varying slowest.

    >>> points((Axis("a", (1, 2)), Axis("b", (3,))))
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    names = [axis.name for axis in grid]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(axis.values for axis in grid))]


def apply(arm: Arm, grid: Grid, point: Point) -> dict[str, Any]:
    """Return the specification of an arm with the values of a point."""
    stages = [dict(stage) for stage in arm["stages"]]
    for axis in grid:
        value = point[axis.name]
        if axis.name == "steps":
            _set_steps(stages, value, axis.times)
        elif axis.name in TUNABLE:
            for stage in stages:
                own = stage.get(axis.name, Stage.model_fields[axis.name].default)
                stage[axis.name] = _scaled(own, value, axis) if axis.times else value
        else:
            for stage in (stage for stage in stages if axis.name in METHODS.options(stage["method"])):
                options = dict(stage.get("method_options") or {})
                own = options.get(axis.name, METHODS.options(stage["method"])[axis.name].default)
                options[axis.name] = _scaled(own, value, axis) if axis.times else value
                stage["method_options"] = options
    return {**arm, "stages": stages}


def chosen_values(arm: Arm, grid: Grid) -> dict[str, Any]:
    """Return the values that an arm has on the axes of a grid: one value, or a list where its stages differ."""
    found: dict[str, Any] = {}
    for axis in grid:
        if axis.name == "steps" and all(stage.get("steps") for stage in arm["stages"]):
            found["steps"] = sum(stage["steps"] for stage in arm["stages"])
            continue
        parts = [stage["method_options"] if axis.name not in TUNABLE else stage for stage in arm["stages"]]
        name = "epochs" if axis.name == "steps" else axis.name
        values = [part[name] for part in parts if name in part]
        found[name] = values[0] if all(value == values[0] for value in values) else values
    return found


def edges(grid: Grid, point: Point) -> dict[str, int]:
    """Return the names whose value in a point is the first or the last of its axis: -1 or 1."""
    return {axis.name: side for axis in grid if (side := axis.edge(point[axis.name]))}


def widen(arms: Mapping[str, Arm], grids: Mapping[str, Grid], best: Mapping[str, Point]) -> dict[str, Grid]:
    """Return the grids with one more value wherever the best point of any arm lies at an edge, for all arms alike.

    An axis stays as it is where an arm does not have it, where the next value is none that a run may have, and where
    arms would get different numbers of trials.
    """
    wanted = dict.fromkeys(item for arm, grid in grids.items() for item in edges(grid, best[arm]).items())
    return _widened(arms, grids, wanted)


def widest(arms: Mapping[str, Arm], grids: Mapping[str, Grid]) -> dict[str, Grid]:
    """Return the grids widened at all edges: the most trials that `widen` can lead to."""
    axes = dict.fromkeys(axis.name for grid in grids.values() for axis in grid if axis.is_ordered)
    return _widened(arms, grids, [(name, side) for name in axes for side in (-1, 1)])


def _widened(arms: Mapping[str, Arm], grids: Mapping[str, Grid], wanted: Iterable[tuple[str, int]]) -> dict[str, Grid]:
    wider = dict(grids)
    for name, side in wanted:
        tried = {arm: _with_next(grid, name, side) for arm, grid in wider.items()}
        complete = {arm: grid for arm, grid in tried.items() if grid is not None}
        if len(complete) < len(arms) or len({len(points(grid)) for grid in complete.values()}) > 1:
            continue
        if all(_is_valid(arms[arm], grid) for arm, grid in complete.items()):
            wider = complete
    return wider


def _with_next(grid: Grid, name: str, side: int) -> Grid | None:
    """Return a grid with one more value on an axis; None without such an axis."""
    if not any(axis.name == name and axis.is_ordered for axis in grid):
        return None
    return tuple(
        replace(axis, values=(*axis.values, axis.beyond(side))) if axis.name == name else axis for axis in grid
    )


def _is_valid(arm: Arm, grid: Grid) -> bool:
    """Whether a run may have the last value of each axis."""
    last = {axis.name: axis.values[-1] for axis in grid}
    try:
        spec = RunSpec.parse(apply(arm, grid, last))
        for stage in spec.stages:
            get_method(stage.method, **stage.method_options)
    except InputError:
        return False
    return True


def _known(arms: Mapping[str, Arm]) -> set[str]:
    methods = {stage["method"] for arm in arms.values() for stage in arm["stages"]}
    return {*TUNABLE, *(option for method in methods for option in METHODS.options(method))}


def _check_names(arms: Mapping[str, Arm], shared: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse names that no arm has, and for one arm a name that it does not have."""
    for name in (name for name in shared if name not in _known(arms)):
        raise InputError(f"tune: {unknown('name', name, {*_known(arms), *arms})}")
    for arm, part in own.items():
        for name in (name for name in part if name not in _known({arm: arms[arm]})):
            raise InputError(f"tune: arm {arm}: {unknown('name', name, _known({arm: arms[arm]}))}")


def _grid(arm: Arm, space: Mapping[str, Any]) -> Grid:
    """Return the axes of one arm: those that it has."""
    has = _known({"": arm})
    return tuple(_axis(name, values, arm) for name, values in sorted(space.items()) if name in has)


def _axis(name: str, given: Any, arm: Arm) -> Axis:
    times = isinstance(given, Mapping)
    if times and set(given) != {TIMES}:
        raise InputError(f"tune: {name}: give a list of values, or {{'times': [...]}} for factors of the arm's own one")
    values = given[TIMES] if times else given
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError(f"tune: {name}: give a list of values, received {shown(values)}")
    if not values:
        raise InputError(f"tune: {name} has no values: give some, or leave it out; tune={{}} tunes nothing")
    if any(value in values[:place] for place, value in enumerate(values)):
        raise InputError(f"tune: {name} has a value twice in {shown(values)}: leave it out once")
    if times and not all(_is_number(value) and value > 0 for value in values):
        raise InputError(f"tune: {name}: factors are numbers above 0, received {shown(values)}")
    axis = Axis(name, tuple(values), times)
    for value in values:  # refused here, not in the middle of a grid
        apply(arm, (axis,), {name: value})
    return axis


def _check_sizes(grids: Mapping[str, Grid], shared: Mapping[str, Any], arms: Mapping[str, Arm]) -> None:
    """Refuse arms with different numbers of trials."""
    sizes = {arm: len(points(grid)) for arm, grid in grids.items()}
    if not any(grids.values()):
        raise InputError("tune names no setting: give some values, such as {'learning_rate': [...]}, or tune={}")
    if len(set(sizes.values())) == 1:
        return
    counts = ", ".join(f"{arm} {size}" for arm, size in sizes.items())
    most, fewest = max(sizes.values()), min(sizes, key=lambda arm: sizes[arm])
    lacking = [name for name in shared if name not in _known({fewest: arms[fewest]})]
    why = f", which has no {', '.join(lacking)}" if lacking else ""
    raise InputError(
        f"tune: arms must have the same number of trials, and they have {counts}: give {fewest}{why}, other values "
        f"until it has {most}, such as tune={{..., {fewest!r}: {{'learning_rate': [...]}}}}"
    )


def _set_steps(stages: list[dict[str, Any]], value: Any, times: bool) -> None:
    """Set the steps of stages: all times a factor, or together to a number, in the shares that they have."""
    if times:
        for stage in stages:
            if stage.get("epochs") is not None:
                stage["epochs"] = round_significant(stage["epochs"] * value)
            else:
                stage["steps"] = max(1, round(stage["steps"] * value))
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < len(stages):
        raise InputError(f"tune: steps is a whole number of at least {len(stages)}, received {shown(value)}")
    lengths: list[float] = [stage.get("steps") or stage["epochs"] for stage in stages]
    ends = [round(value * sum(lengths[: place + 1]) / sum(lengths)) for place in range(len(stages))]
    for stage, start, end in zip(stages, [0, *ends], ends, strict=False):
        stage |= {"steps": max(1, end - start), "epochs": None}


def _scaled(own: Any, factor: float, axis: Axis) -> Any:
    if not _is_number(own):
        raise InputError(f"tune: {axis.name} is {shown(own)} without tuning, which has no factors: give values instead")
    scaled = round_significant(own * factor)
    return max(1, round(scaled)) if isinstance(own, int) and axis.name in TUNABLE else scaled


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
