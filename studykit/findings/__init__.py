"""What a study has found, computed from its table of runs: one question per file. Torch-free.

A finding is a function `name(frame, *, option=default) -> Finding` in a file of the same name, and says the same in
the notebook, on the terminal, in the dashboard and in the README:

    finding = FINDINGS.member("data_size")(results.load("results/lexicon"))
    finding.table, finding.sentence
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from studykit.discovery import Room

FINDINGS = Room("studykit.findings", kind="finding")


@dataclass(frozen=True)
class Finding:
    """An answer with its evidence.

    Attributes:
        table: one row per setting, columns as shown to people.
        sentence: the answer in words, with numbers, interval and seeds; says so where nothing can be said yet.
        numbers: the same as plain JSON data.
    """

    table: pd.DataFrame
    sentence: str
    numbers: dict[str, Any] = field(default_factory=dict)


def comparable(frame: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a study that differ from some runs in budget and seed only: one study may hold many variants.

    Steps may go with the budget; at the budgets of these runs they must be theirs.

    Args:
        frame: from `results.load`.
        runs: the rows to compare with, such as the arms of one notebook.
    """
    same = frame["student"].isin(runs["student"]) & frame["options"].isin(runs["options"])
    here = frame["budget_examples"].isin(runs["budget_examples"])
    same &= ~here | frame["steps"].isin(runs["steps"])
    return frame[same & (frame["teacher"].isna() | frame["teacher"].isin(runs["teacher"].dropna()))]


def labels(done: pd.DataFrame) -> pd.Series:
    """Return a name for every run: its method, and where one method has several sets of options, what differs."""
    names: dict[tuple[str, str], str] = {}
    for method, part in done.groupby("method"):
        variants = {str(text): set(str(text).split(", ")) for text in part["options"].unique()}
        shared = set.intersection(*variants.values())
        for text, options in variants.items():
            own = sorted(options - shared)
            names[str(method), text] = f"{method} ({', '.join(own)})" if own else str(method)
    pairs = zip(done["method"], done["options"], strict=True)
    return pd.Series([names[str(method), str(text)] for method, text in pairs], index=done.index, dtype=object)


def format_difference(interval: dict[str, Any] | None, digits: int) -> str:
    """Return a signed difference with its interval, from plain data; nothing where there is none.

    >>> format_difference({"mean": 1.0, "low": None, "high": None}, 1), format_difference(None, 1)
    ('+1.0', '')
    """
    if interval is None:
        return ""
    return format_interval(interval["mean"], interval["low"], interval["high"], digits, sign=True)


def format_interval(mean: float, low: float | None, high: float | None, digits: int = 1, sign: bool = False) -> str:
    """Return "12.3 [11.0, 13.6]", or the mean alone without bounds.

    >>> format_interval(12.34, 11.0, 13.6)
    '12.3 [11.0, 13.6]'
    >>> format_interval(0.5, None, None, sign=True)
    '+0.5'
    """
    show = f"{{:{'+' if sign else ''}.{digits}f}}".format
    return show(mean) if low is None or high is None else f"{show(mean)} [{show(low)}, {show(high)}]"


def format_cell(column: str, value: object) -> str:
    """Return a table's value as people read it: counts with separators, NLL with three digits, scores with one.

    >>> format_cell("budget", 1500), format_cell("sft NLL", 1.6), format_cell("sft", 11.0), format_cell("x", "+1.0")
    ('1,500', '1.600', '11.0', '+1.0')
    """
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}" if "NLL" in column else f"{value:.1f}"
    return str(value)


def markdown_table(table: pd.DataFrame, left: Collection[str] = ("method",)) -> str:
    """Return a table as Markdown, values as people read them; columns of numbers, all but `left`, are right-aligned.

    >>> print(markdown_table(pd.DataFrame({"method": ["kd"], "budget": [1500]})))
    | method | budget |
    | --- | ---: |
    | kd | 1,500 |
    """
    columns = [str(column) for column in table.columns]
    rows = [map(format_cell, columns, row) for row in table.itertuples(index=False, name=None)]
    sides = ["---" if column in left else "---:" for column in columns]
    lines = [" | ".join(cells) for cells in (columns, sides, *rows)]
    return "\n".join(f"| {line} |" for line in lines)
