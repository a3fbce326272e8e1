"""The names users say (`sft`, `kd`, ...), each a recipe of loss, rollout and options in a file of its own.

A method is a function `name(*, option=default) -> Recipe` in a file of the same name:

    recipe = get_method("kd", temperature=2.0)
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from studykit.discovery import Room, check_options
from studykit.errors import InputError
from studykit.losses import Loss, get_loss
from studykit.rollouts import Rollout, get_rollout
from studykit.samplers import SAMPLERS

METHODS = Room("studykit.methods", kind="method")


@dataclass(frozen=True)
class Recipe:
    """What one training stage does.

    Attributes:
        loss: name of the divergence (or `cross_entropy`).
        loss_options: its keyword options.
        rollout: name of the way sequences are chosen.
        rollout_options: its keyword options.
        kd_ratio: share of the divergence; the rest is cross-entropy.
        temperature: of both sides in the divergence.
        scale_by_t2: multiply the divergence by temperature squared.
        choose: the sampler by which a share of the budget's examples is kept; empty keeps all.
        choose_share: that share, in (0, 1].
        choose_reference: the reference model that such a sampler may ask beside the specification's teacher.
        teacher_pruned: share of the teacher's weights that are masked out, unless the specification says another.
    """

    loss: str
    loss_options: dict[str, Any] = field(default_factory=dict)
    rollout: str = "dataset"
    rollout_options: dict[str, Any] = field(default_factory=dict)
    kd_ratio: float = 1.0
    temperature: float = 1.0
    scale_by_t2: bool = False
    choose: str = ""
    choose_share: float = 0.5
    choose_reference: str | None = None
    teacher_pruned: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.kd_ratio <= 1:
            raise InputError(f"kd_ratio must lie in [0, 1], received {self.kd_ratio}")
        if not self.temperature > 0:
            raise InputError(f"temperature must be above 0, received {self.temperature}")
        if not 0 < self.choose_share <= 1:
            raise InputError(f"share must lie in (0, 1], received {self.choose_share}")

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher must be named."""
        return self.trains_with_teacher or bool(self.choose)

    @property
    def trains_with_teacher(self) -> bool:
        """Whether the teacher is asked during training."""
        return self.make_loss().needs_teacher or self.make_rollout().needs_teacher

    @property
    def needs_live_teacher(self) -> bool:
        """Whether it is asked about sequences that the data does not hold, which no cache knows."""
        return self.make_loss().needs_teacher and not self.make_rollout().keeps_rows

    @property
    def across_tokenizers(self) -> bool:
        """Whether teacher and student may have different tokenizers."""
        loss, rollout = self.make_loss(), self.make_rollout()
        return (loss.across_tokenizers or not loss.needs_teacher) and (rollout.across_tokenizers or rollout.keeps_rows)

    def make_loss(self) -> Loss:
        """Make the loss, with fresh state."""
        return get_loss(self.loss, **self.loss_options)

    def make_rollout(self) -> Rollout:
        """Make the rollout."""
        return get_rollout(self.rollout, **self.rollout_options)


def takes(name: str, option: str) -> bool:
    """Return whether a method has an option of that name.

    >>> takes("gkd", "max_new_tokens"), takes("kd", "max_new_tokens")
    (True, False)
    """
    return option in inspect.signature(METHODS.member(name)).parameters


def get_method(name: str, **options: Any) -> Recipe:
    """Make the recipe of that name, and check its loss and rollout by making them.

    Raises:
        InputError: an unknown name or option, with the nearest known one.

    >>> get_method("kd", temprature=2.0)
    Traceback (most recent call last):
    studykit.errors.InputError: method 'kd': unknown option 'temprature'; did you mean 'temperature'?
    """
    make: Callable[..., Recipe] = METHODS.member(name)
    check_options("method", name, make, options)
    recipe = make(**options)
    recipe.make_loss()
    recipe.make_rollout()
    if recipe.choose:
        SAMPLERS.module(recipe.choose)
    return recipe
