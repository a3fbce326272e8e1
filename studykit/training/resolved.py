"""A run with everything that its specification names looked up, once: what training, evaluation and capture take."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from studykit.chat import Encoded
from studykit.collate import plan_batches, plan_mixed_batches
from studykit.data import StageData
from studykit.discovery import options_of
from studykit.methods import Recipe
from studykit.models.names import ModelRef
from studykit.results.record import HeldOut, ItemCounts
from studykit.rollouts import ROLLOUTS
from studykit.sources import Example
from studykit.spec import Evaluation, RunSpec, Stage, Teacher


@dataclass(frozen=True)
class ResolvedStage:
    """One training stage.

    Attributes:
        spec: the pinned specification of the stage.
        recipe: of its method, with the method's options.
        part_recipes: of each part of a step; empty where all have that of the stage.
        data: what it trains on.
        validation: what its method computes the student's loss on during training; None for other methods.
        validation_examples: the examples of the validation; none without one.
        seeds: of the order of its examples: the run's seed and the number of the stage.
        own_teacher: the model of the teacher that it names; None where it has the run's.
    """

    spec: Stage
    recipe: Recipe
    data: StageData
    validation: Encoded | None = None
    validation_examples: list[Example] = field(default_factory=list)
    seeds: Sequence[int] = (0, 0)
    own_teacher: ModelRef | None = None
    part_recipes: tuple[Recipe, ...] = ()

    @cached_property
    def recipes(self) -> list[Recipe]:
        """The different recipes of the parts of a step, that of the stage first."""
        different = [self.recipe]
        different += [
            r for number, r in enumerate(self.part_recipes) if r not in (self.recipe, *self.part_recipes[:number])
        ]
        return different

    @cached_property
    def methods(self) -> np.ndarray | None:
        """Number of the recipe that trains each sequence, int64 [n]; None where there is one."""
        if len(self.recipes) == 1:
            return None
        numbers = [self.recipes.index(recipe) for recipe in self.part_recipes]
        return np.repeat(numbers, [size for size, _ in self.data.shares])

    @property
    def trains_with_teacher(self) -> bool:
        """Whether the teacher takes part in training."""
        return any(recipe.trains_with_teacher for recipe in self.recipes)

    def captured(self, rows: np.ndarray) -> np.ndarray:
        """Return those of the sequences on which a method compares with the teacher's distribution."""
        compared = [number for number, r in enumerate(self.recipes) if r.parts[0].needs_teacher]
        return rows if self.methods is None else rows[np.isin(self.methods[rows], compared)]

    def plan(self) -> list[np.ndarray]:
        """Return the micro-batches of all optimizer steps in their order, as positions among the examples."""
        spec, lengths = self.spec, self.data.encoded.lengths
        micro_batches, generator = spec.gradient_accumulation_steps, np.random.default_rng(list(self.seeds))
        if not self.data.shares:
            return plan_batches(lengths, spec.batch_size, spec.planned_steps * micro_batches, generator)
        step = (micro_batches, spec.batch_size)
        return plan_mixed_batches(lengths, self.data.shares, step, spec.planned_steps, generator)

    @property
    def max_new_tokens(self) -> int | None:
        """Maximum number of tokens of an answer that its methods generate; None where they generate none."""
        limits = [
            (recipe.rollout_options or {}).get(option.name, option.default)
            for recipe in self.recipes
            if (option := options_of(ROLLOUTS.member(recipe.rollout)).get("max_new_tokens"))
        ]
        return max(limits, default=None)

    @cached_property
    def usage(self) -> "Usage":
        """How much of its data the stage trains on."""
        return Usage.of(self.plan(), len(self.data.encoded))

    @property
    def data_line(self) -> str:
        """How much of its budget the stage trains on: "budget 5,000, seen 2,400 (0.48 epochs)"."""
        manifest, selected, usage = self.data.manifest, len(self.data.examples), self.usage
        budget, sequences = manifest["examples"], manifest["sequences"]
        several = "" if sequences == budget else f" as {sequences:,} sequences"
        selection = "" if selected == sequences else f", selected {selected:,}"
        counts = {name: count for name, count in manifest.get("dropped", {}).items() if count}
        filtered = f"; filters left out {', '.join(f'{n:,} ({name})' for name, n in counts.items())}" if counts else ""
        return f"budget {budget:,}{several}{selection}, seen {len(usage.rows):,} ({usage.epochs:.2f} epochs){filtered}"


@dataclass(frozen=True)
class Usage:
    """How much of the examples a plan of batches takes.

    Attributes:
        rows: int64 [seen], positions of the examples that are taken at least once, sorted.
        epochs: how often an example is taken, on average over all of them.
    """

    rows: np.ndarray
    epochs: float

    @classmethod
    def of(cls, plan: Sequence[np.ndarray], examples: int) -> "Usage":
        """Count what a plan takes of that many examples.

        >>> Usage.of([np.array([3, 0]), np.array([3, 2])], examples=5)
        Usage(rows=array([0, 2, 3]), epochs=0.8)
        """
        taken = np.concatenate(plan)
        return cls(np.unique(taken), len(taken) / examples)

    @property
    def manifest(self) -> dict[str, float]:
        """What a stage's manifest says of it."""
        return {"seen_examples": len(self.rows), "epochs": round(self.epochs, 4)}


def usage_of_parts(data: StageData, plan: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return the manifests of a mixture's parts, each with how much of it a plan takes; nothing without a mixture."""
    if not data.shares:
        return {}
    taken, starts = np.concatenate(plan), np.cumsum([0, *(size for size, _ in data.shares)])
    parts = []
    for (size, _), start, manifest in zip(data.shares, starts, data.manifest["mix"], strict=False):
        rows = taken[(taken >= start) & (taken < start + size)]
        usage = {"sequences": len(rows), "seen_examples": len(np.unique(rows)), "epochs": round(len(rows) / size, 4)}
        parts.append(manifest | usage)
    return {"mix": parts}


@dataclass(frozen=True)
class ResolvedEvaluation:
    """One evaluation.

    Attributes:
        spec: the pinned evaluation.
        held_out: the examples that it scores.
        covered: what they cover of their split, by counts.
        items_trained_on: how many of them are trained on too.
        items_validated_on: how many of them are in validation data; None without any.
        teacher: the model that scorers compare the student with; None where none does.
    """

    spec: Evaluation
    held_out: list[Example]
    covered: HeldOut
    items_trained_on: ItemCounts | None = None
    items_validated_on: ItemCounts | None = None
    teacher: ModelRef | None = None


@dataclass(frozen=True)
class ResolvedRun:
    """A pinned specification with its models, recipes and data.

    Attributes:
        spec: the pinned specification.
        student: the model that is trained; with a `random_config`, its tokenizer alone.
        teacher: the model that is distilled; None where no stage needs one besides its own.
        stages: in their order.
        evaluations: in their order, the primary one first.
    """

    spec: RunSpec
    student: ModelRef
    teacher: ModelRef | None
    stages: tuple[ResolvedStage, ...]
    evaluations: tuple[ResolvedEvaluation, ...] = ()

    @property
    def run_id(self) -> str:
        """12 hexadecimal digits: the hash of the pinned training."""
        return self.spec.run_id

    def teacher_of(self, stage: ResolvedStage) -> tuple[Teacher, ModelRef] | None:
        """Return the teacher of a stage, its own or the run's; None without one."""
        if stage.spec.teacher is not None and stage.own_teacher is not None:
            return stage.spec.teacher, stage.own_teacher
        return None if self.spec.teacher is None or self.teacher is None else (self.spec.teacher, self.teacher)

    @property
    def data_lines(self) -> list[str]:
        """How much of its budget each stage trains on, with the number of the stage where there are several."""
        numbers = [f"stage {number}: " if len(self.stages) > 1 else "" for number in range(1, len(self.stages) + 1)]
        return [number + stage.data_line for number, stage in zip(numbers, self.stages, strict=True)]
