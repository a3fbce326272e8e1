"""Numbers and tables of findings as text."""

from collections.abc import Collection, Mapping
from numbers import Integral
from types import MappingProxyType

import pandas as pd

from studykit.statistics import Interval

TEXT_COLUMNS = (
    *(
        "method",
        "signal",
        "arm",
        "teacher",
        "student",
        "divergence",
        "recipe",
        "schedule",
        "data",
        "written by",
        "kept by",
    ),
    *("verdict", "NLL verdict"),
)
"""Columns of text in tables of findings; all others are aligned as numbers."""


def format_interval(interval: Interval | None, digits: int = 1, sign: bool = False) -> str:
    """Return "12.3 [11.0, 13.6]", the mean alone without bounds, and nothing without an interval.

    >>> format_interval(Interval(12.34, 11.0, 13.6, 3))
    '12.3 [11.0, 13.6]'
    >>> format_interval(Interval(0.5, None, None, 1), sign=True), format_interval(None)
    ('+0.5', '')
    """
    if interval is None:
        return ""
    show = f"{{:{'+' if sign else ''}.{digits}f}}".format
    if interval.low is None or interval.high is None:
        return show(interval.mean)
    return f"{show(interval.mean)} [{show(interval.low)}, {show(interval.high)}]"


def format_cell(value: object, digits: int = 1) -> str:
    """Return a table's value as people read it: counts with separators, scores with the digits of their metric.

    >>> format_cell(1500), format_cell(1.6, 3), format_cell(11.0), format_cell("+1.0"), format_cell(pd.NA)
    ('1,500', '1.600', '11.0', '+1.0', '')
    """
    if value is None or value is pd.NA or value != value:  # the last one is a NaN
        return ""
    if isinstance(value, Integral):
        return f"{value:,}"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def markdown_table(
    table: pd.DataFrame, left: Collection[str] = TEXT_COLUMNS, digits: Mapping[str, int] = MappingProxyType({})
) -> str:
    """Return a table as Markdown, values as people read them; columns of numbers, all but `left`, are right-aligned.

    Args:
        table: of a finding.
        left: columns of text.
        digits: decimals by column, of the finding; 1 where it names none.

    >>> print(markdown_table(pd.DataFrame({"method": ["kd"], "budget": [1500]})))
    | method | budget |
    | --- | ---: |
    | kd | 1,500 |
    """
    columns = [str(column) for column in table.columns]
    rows = [
        [format_cell(value, digits.get(column, 1)) for column, value in zip(columns, row, strict=True)]
        for row in table.itertuples(index=False, name=None)
    ]
    sides = ["---" if column in left else "---:" for column in columns]
    lines = [" | ".join(cells) for cells in (columns, sides, *rows)]
    return "\n".join(f"| {line} |" for line in lines)
