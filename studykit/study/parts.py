"""The stages of an arm as they are written: `sft*9>kd:half@0.1` has two."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from studykit.errors import InputError

_NUMBER = r"\d{1,6}(?:\.\d{1,6})?"
_PART = re.compile(rf"(?P<name>.+?)(?:\s*\*\s*(?P<weight>{_NUMBER}))?(?:\s*@\s*(?P<rate>{_NUMBER}))?")
_DIGITS = 10


@dataclass(frozen=True)
class Part:
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
    def parse(cls, text: str) -> "Part":
        """Read a stage.

        Raises:
            InputError: a weight or a rate is 0.

        >>> Part.parse("kd:half*9@0.1"), Part.parse("sft")
        (Part(name='kd:half', weight=9.0, rate=0.1), Part(name='sft', weight=1.0, rate=1.0))
        """
        found = _PART.fullmatch(text.strip())
        if found is None:
            return cls(text.strip())
        part = cls(found["name"], *(float(found[name] or 1) for name in ("weight", "rate")))
        for name, value in (("weight of its steps", part.weight), ("factor of its learning rate", part.rate)):
            if not value:
                raise InputError(f"{text.strip()!r}: the {name} must be more than 0")
        return part


def divided(steps: int, parts: Sequence[Part]) -> list[int]:
    """Return the steps of each stage by their weights; what is left goes to the largest fractions, in their order.

    >>> [divided(101, [Part("sft")] * 2), divided(402, [Part("sft")] * 4), divided(400, [Part("sft", 39), Part("kd")])]
    [[51, 50], [101, 101, 100, 100], [390, 10]]
    """
    total = sum(part.weight for part in parts)
    exact = [round(steps * part.weight / total, 6) for part in parts]
    whole = [int(count) for count in exact]
    by_fraction = sorted(range(len(whole)), key=lambda stage: whole[stage] - exact[stage])
    more = by_fraction[: steps - sum(whole)]
    return [count + (stage in more) for stage, count in enumerate(whole)]


def rounded(value: float) -> float:
    """Return a number to ten significant digits: 0.0001 times 3 is 0.0003, and the same run as with that value.

    >>> 0.0001 * 3, rounded(0.0001 * 3)
    (0.00030000000000000003, 0.0003)
    """
    return float(f"{value:.{_DIGITS}g}")
