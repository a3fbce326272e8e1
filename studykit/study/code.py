"""The source code that a stage and an evaluation depend on, where it is not the released one."""

from collections.abc import Iterable, Sequence

from studykit.discovery import Room
from studykit.losses import LOSSES
from studykit.methods import METHODS, Recipe
from studykit.rollouts import ROLLOUTS
from studykit.samplers import SAMPLERS
from studykit.scorers import SCORERS, name_of
from studykit.sources import SOURCES
from studykit.spec import Evaluation, Stage
from studykit.study.released import unreleased


def code_of_stage(stage: Stage, recipes: Sequence[Recipe]) -> dict[str, str] | None:
    """Return hashes of what a stage runs: method, loss, rollout, samplers, sources, scorer; None for released ones."""
    data = [part for part, _ in stage.parts] + ([] if stage.validation is None else [stage.validation])
    samplers = [part.budget.sampler for part in data] + [recipe.select for recipe in recipes if recipe.select]
    return _code(
        {
            METHODS: [name for name, _ in stage.methods],
            LOSSES: [recipe.loss for recipe in recipes],
            ROLLOUTS: [recipe.rollout for recipe in recipes],
            SAMPLERS: samplers,
            SOURCES: [part.source for part in data],
            SCORERS: [stage.metric_for_best_model] if stage.metric_for_best_model else [],
        }
    )


def code_of_evaluation(evaluation: Evaluation) -> dict[str, str] | None:
    """Return the hashes of what an evaluation runs: its source and its scorers; None where all is released."""
    return _code({SOURCES: [evaluation.data.source], SCORERS: map(name_of, evaluation.scorers)})


def _code(names: dict[Room, Iterable[str]]) -> dict[str, str] | None:
    found = {
        f"{room.kind}.{name}": sha256
        for room, used in names.items()
        for name in used
        if (sha256 := unreleased(room, name))
    }
    return found or None
