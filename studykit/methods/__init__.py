"""Methods by the names that users give (`sft`, `kd`, ...): a method is a `Recipe` value, named like its file.

    gkd = Recipe(loss="jsd", rollout="mixed")            # the whole of a file, below its docstring

    get_method("gkd", beta=0.1, temperature=2.0)         # the recipe with a user's options

The options of a method are its `settable` fields, and the options of its loss and of its rollout with their defaults,
ranges and documentation. One name is one value: an option that loss and rollout both have, such as `teacher_share`, is
given to both. The rollout's temperatures are called `sampling_temperature` and `teacher_sampling_temperature`, since
`temperature` alone is that of the divergence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field

from studykit.discovery import Option, Room, check_options, options_of
from studykit.errors import InputError
from studykit.losses import LOSSES, Loss, get_loss
from studykit.rollouts import ROLLOUTS, Rollout, get_rollout
from studykit.samplers import models_of

METHODS = Room("studykit.methods", kind="method")

MIXING = ("kd_ratio", "temperature", "scale_by_t2")
"""Fields of a recipe that are options of most methods."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one training stage does, and which options its users have.

    Args:
        loss: divergence by name, or `cross_entropy`.
        loss_options: its options that differ from its defaults, such as {"beta": 0.1} for `jsd`.
        rollout: which sequences are trained on, by name.
        rollout_options: its options that differ from its defaults.
        kd_ratio: weight of the divergence; the rest is cross-entropy with the answer that is trained on.
        temperature: of teacher and student in the divergence; cross-entropy stays at 1.
        scale_by_t2: multiply the divergence by the temperature squared, which keeps the size of its gradient.
        select: sampler that selects among the budget's examples; None trains on all of them.
        keep_fraction: fraction of the budget's examples that `select` keeps.
        reference: small model beside the teacher that `select` ranks by; it has not seen the budget's data.
        teacher_pruned: fraction of the teacher's smallest weights set to 0, unless the specification gives another.
        settable: the fields above that are options of the method.
        renamed: public names of options, by "loss.NAME", "rollout.NAME" or the name of a field.
        hidden: public names of the loss's and the rollout's options that users cannot set.
    """

    loss: str
    loss_options: dict[str, Any] | None = None
    rollout: str = "dataset"
    rollout_options: dict[str, Any] | None = None
    kd_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    temperature: Annotated[float, Field(gt=0)] = 1.0
    scale_by_t2: bool = False
    select: str | None = None
    keep_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    reference: str | None = None
    teacher_pruned: Annotated[float, Field(ge=0, lt=1)] | None = None
    settable: tuple[str, ...] = MIXING
    renamed: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    parts: tuple[Loss, Rollout] = field(init=False, repr=False, compare=False)
    """Loss and rollout, made once for the flags that they have with these options; training makes new ones."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", self.make_parts())  # the dataclass is frozen

    def make_parts(self) -> tuple[Loss, Rollout]:
        """Make loss and rollout, with fresh state."""
        return get_loss(self.loss, **self.loss_options or {}), get_rollout(self.rollout, **self.rollout_options or {})

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher must be named."""
        return self.trains_with_teacher or self.select is not None

    @property
    def trains_with_teacher(self) -> bool:
        """Whether the teacher takes part in training."""
        return any(part.needs_teacher for part in self.parts)

    @property
    def needs_live_teacher(self) -> bool:
        """Whether the teacher scores sequences that are not in the data, which no cache holds."""
        loss, rollout = self.parts
        return loss.needs_teacher and not rollout.keeps_rows

    @property
    def across_tokenizers(self) -> bool:
        """Whether teacher and student may have different tokenizers."""
        loss, rollout = self.parts
        return (loss.across_tokenizers or not loss.needs_teacher) and (rollout.across_tokenizers or rollout.keeps_rows)

    @cached_property
    def options(self) -> dict[str, Option]:
        """What users may set, by public name, with the recipe's defaults."""
        return {option.name: option for _, _, option in self._targets}

    def with_options(self, options: Mapping[str, Any]) -> "Recipe":
        """Return the recipe with other values of its options, which have been checked."""
        fields: dict[str, Any] = {}
        inner = {"loss_options": dict(self.loss_options or {}), "rollout_options": dict(self.rollout_options or {})}
        for part, name, option in self._targets:
            if option.name in options:
                (inner[f"{part}_options"] if part else fields)[name] = options[option.name]
        return replace(self, **inner | fields)

    @cached_property
    def _targets(self) -> list[tuple[str, str, Option]]:
        """Where each option goes: "loss", "rollout" or "" for a field, the name there, and the public option."""
        targets = [("", name, self._public("", options_of(Recipe)[name])) for name in self.settable]
        closed = {option.name for _, _, option in targets} | set(self.hidden)
        for part, room in (("loss", LOSSES), ("rollout", ROLLOUTS)):
            if f"{part}_options" not in self.settable:
                inner = room.options(getattr(self, part))
                public = [(part, name, self._public(part, option)) for name, option in inner.items()]
                targets += [target for target in public if target[-1].name not in closed]
        return targets

    def _public(self, part: str, option: Option) -> Option:
        """Return an option under its public name, with the recipe's default."""
        own = (getattr(self, f"{part}_options") or {}) if part else vars(self)
        usual = option.name.replace("temperature", "sampling_temperature") if part == "rollout" else option.name
        name = self.renamed.get(f"{part}.{option.name}" if part else option.name, usual)
        return replace(option, name=name, default=own.get(option.name, option.default))


def get_method(name: str, /, **options: Any) -> Recipe:
    """Return the recipe of that name with a user's options.

    Raises:
        InputError: an unknown name or option, with the nearest known one, or a value outside its type or range.

    >>> get_method("kd", temprature=2.0)
    Traceback (most recent call last):
    studykit.errors.InputError: method 'kd': unknown option 'temprature'; did you mean 'temperature'?
    """
    recipe: Recipe = METHODS.member(name)
    if "loss" in recipe.settable and isinstance(options.get("loss"), str):
        recipe = replace(recipe, loss=options["loss"])  # its options are those of the loss that is chosen
    check_options("method", name, recipe.options, options)
    recipe = recipe.with_options(options) if options else recipe
    if recipe.select and recipe.reference is None and "reference" in models_of(recipe.select):
        raise InputError(
            f"method {name!r} needs a reference: name a small model that has not seen the budget's data, such as "
            "method_options={'reference': 'lexicon/reference'}"
        )
    return recipe
