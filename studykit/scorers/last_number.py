r"""Share of items whose answer ends in the reference's number; in [0, 1].

The number is the last in the last `\boxed{...}` or after the last `####`, whichever stands later, and otherwise the
last of the text. `1,234.50`, `-3`, `.5`, `1e3`, `1/2` and `\frac{1}{2}` are numbers; currency, percent signs and units
around them are left out, so that `50%` is 50. Numbers are equal if their values are, with no rounding: 12 and 12.0 are,
0.33 and 1/3 are not.
"""

import re
from fractions import Fraction

from studykit.errors import InputError
from studykit.scorers import Item, Metric, Score

METRIC = Metric("last number right", unit="points", scale=100.0, higher_is_better=True, digits=1)

_NUMBER = re.compile(
    r"(?<![\w./])"  # not inside a word, a number or a date
    r"(?P<sign>[-+]?)[$€£¥]?(?P<other_sign>[-+]?)"
    r"(?P<value>(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?)"
    r"(?P<divisor>/[1-9]\d*(?![\d/.]))?"
)
_MARK = re.compile(r"\\boxed\s*\{(?P<boxed>(?:[^{}]|\{[^{}]*\})*)\}|####(?P<line>[^\n]*)")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}")
_SAME = {"−": "-", "{,}": ",", r"\,": "", r"\$": "$"}
_MOST_DIGITS = 300
"""A longer run of digits is a repetition and no number."""


def last_number(item: Item) -> Score:
    r"""Return 1 where the last number of the answer equals that of the reference.

    >>> last_number(Item("a", "", "40 + 2 = 42\n#### 42", r"so it is \boxed{42.0} apples", 0.0, 4)).value
    1.0
    """
    found = find_number(item.answer or "")
    return Score(float(found is not None and found == find_number(item.reference)))


def check(item: Item) -> None:
    """Refuse an item whose reference holds no number.

    Raises:
        InputError: naming the item.
    """
    if find_number(item.reference) is None:
        raise InputError(
            f"scorer 'last_number': the reference of item {item.id!r} has no number: {item.reference!r:.80}"
        )


def find_number(text: str) -> Fraction | None:
    r"""Return the number that a text ends in; None where it has none.

    >>> find_number("1,234.5 EUR"), find_number(r"\boxed{-\frac{1}{2}} (2 steps)"), find_number("none")
    (Fraction(2469, 2), Fraction(-1, 2), None)
    """
    for old, new in _SAME.items():
        text = text.replace(old, new)
    text = _FRACTION.sub(r"\1/\2", text)
    marked = [match["boxed"] if match["line"] is None else match["line"] for match in _MARK.finditer(text)]
    for part in (*marked[-1:], text):
        numbers = [number for match in _NUMBER.finditer(part) if (number := _value(match)) is not None]
        if numbers:
            return numbers[-1]
    return None


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _MOST_DIGITS:
        return None
    value = Fraction(match["value"].replace(",", ""))
    if match["divisor"]:
        value /= int(match["divisor"][1:])
    return -value if "-" in match["sign"] + match["other_sign"] else value
