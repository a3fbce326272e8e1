"""The stages of an arm as they are written: `sft*9>kd:half@0.1` has two."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from studykit.errors import InputError

_NUMBER = r"\d{1,6}(?:\.\d{1,6})?"
_STAGE = re.compile(rf"(?P<name>[^*@]*?)(?:\s*\*\s*(?P<weight>{_NUMBER}))?(?:\s*@\s*(?P<rate>{_NUMBER}))?")
_DIGITS = 10


@dataclass(frozen=True)
class ArmStage:
    """One stage of an arm, as it is written: `kd:half*9@0.1`.

    Attributes:
        name: method and label.
        weight: of its steps among the arm's.
        rate: times which the learning rate of the comparison is taken.
    """

    name: str
    weight: float = 1.0
    rate: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "ArmStage":
        """Read a stage.

        Raises:
            InputError: a weight or a rate is 0 or no number, or they are in the other order.

        >>> ArmStage.parse("kd:half*9@0.1"), ArmStage.parse("sft")
        (ArmStage(name='kd:half', weight=9.0, rate=0.1), ArmStage(name='sft', weight=1.0, rate=1.0))
        """
        found = _STAGE.fullmatch(text.strip())
        if found is None:
            raise InputError(
                f"stage {text.strip()!r} of an arm: after the method comes *WEIGHT of its steps, then @FACTOR of its "
                "learning rate, plain numbers, such as kd*9@0.1"
            )
        stage = cls(found["name"], *(float(found[name] or 1) for name in ("weight", "rate")))
        for name, value in (("weight of its steps", stage.weight), ("factor of its learning rate", stage.rate)):
            if not value:
                raise InputError(f"stage {text.strip()!r} of an arm: the {name} must be more than 0")
        return stage


def divide_steps(steps: int, stages: Sequence[ArmStage]) -> list[int]:
    """Return the steps of each stage by their weights; what is left goes to the largest fractions, in their order.

    >>> [divide_steps(101, [ArmStage("sft")] * 2), divide_steps(400, [ArmStage("sft", 39), ArmStage("kd")])]
    [[51, 50], [390, 10]]
    """
    total = sum(stage.weight for stage in stages)
    exact = [round(steps * stage.weight / total, 6) for stage in stages]
    whole = [int(count) for count in exact]
    by_fraction = sorted(range(len(whole)), key=lambda stage: whole[stage] - exact[stage])
    more = by_fraction[: steps - sum(whole)]
    return [count + (stage in more) for stage, count in enumerate(whole)]


def round_significant(value: float) -> float:
    """Return a number to ten significant digits: 0.0001 times 3 is 0.0003, and the same run as with that value.

    >>> 0.0001 * 3, round_significant(0.0001 * 3)
    (0.00030000000000000003, 0.0003)
    """
    return float(f"{value:.{_DIGITS}g}")
