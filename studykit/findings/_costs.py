"""What runs cost, in the columns that every finding shows beside its scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

COSTS = {
    "train_s": "seconds",
    "student_tokens": "student reads",
    "teacher_reads": "teacher reads",
    "generated_tokens": "generated",
    "written_tokens": "written for the data",
    "peak_mem_gib": "GiB",
    "cache_bytes": "cache bytes",
}
"""Columns of cost, of `with_costs`, by what tables call them."""

_EQUAL = 1e-9
"""Means that differ by less are equal but for rounding."""


def with_costs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with the tokens that their teachers read and wrote, and the bytes of a cache of their signal.

    What selected examples or filled a cache is read too. What a teacher wrote for the data counts for each run that
    trained on it, also where another one had it written. A run whose record names none of a kind of tokens has used
    0 of them. Bytes are there where `study.measure_signals` measured them.
    """
    empty = pd.Series(None, index=runs.index, dtype=float)
    counts = ("teacher_tokens", "scored_tokens", "generated_tokens")
    teacher, scored, generated = (runs.get(name, empty).astype(float).fillna(0.0) for name in counts)
    size = runs.get("bytes_per_position", empty).astype(float) * runs.get("budget_tokens", empty).astype(float)
    written = [runs.get(name, empty).astype(float) for name in ("synthetic_tokens", "cached_synthetic_tokens")]
    return runs.assign(
        teacher_reads=teacher + scored,
        generated_tokens=generated,
        written_tokens=written[0].fillna(written[1]).fillna(0.0),
        cache_bytes=size,
    )


def cost_cells(means: Mapping[str, float | None]) -> dict[str, Any]:
    """Return the mean costs of a setting as a table shows them; None where one was not measured."""
    return {title: _cell(name, means.get(name)) for name, title in COSTS.items()}


def plain_costs(means: Mapping[str, float | None]) -> dict[str, float]:
    """Return the mean costs of a setting as plain JSON data, without what was not measured."""
    return {name: value for name in COSTS if (value := means.get(name)) is not None}


def without_unused(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the columns of what nothing in it cost; counts stay whole where some are missing."""
    costs = [name for name in COSTS.values() if name in table]
    counts = {name: "Int64" for name in costs if name != COSTS["peak_mem_gib"]}
    used = [name for name in costs if table[name].notna().any() and table[name].fillna(0).any()]
    return table.astype(counts).drop(columns=[name for name in costs if name not in used])


def costs_side_by_side(means: Mapping[str, Sequence[Mapping[str, float | None]]]) -> pd.DataFrame:
    """Return the columns of cost of settings that share the rows of a table.

    A cost has a column for each setting that has any, named after both, and one for all where they are equal.

    Args:
        means: mean costs by setting, as many as the table has rows.
    """
    parts = {setting: without_unused(pd.DataFrame(map(cost_cells, each))) for setting, each in means.items()}
    columns: dict[str, pd.Series] = {}
    for title in COSTS.values():
        known = {setting: part[title] for setting, part in parts.items() if title in part}
        each = list(known.values())
        if len(each) == len(parts) and all(column.equals(each[0]) for column in each):
            columns[title] = each[0]
        else:
            columns |= {f"{setting} {title}": column for setting, column in known.items()}
    return pd.DataFrame(columns)


def _cell(name: str, value: float | None) -> Any:
    return None if value is None else round(value, 2) if name == "peak_mem_gib" else round(value)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the numbers of the points with which no other is both cheaper and at least as good, cheapest first.

    >>> pareto_front([(3.0, -20.0), (1.0, -10.0), (2.0, -10.0), (1.0, -12.0)])
    [3, 0]

    Args:
        points: cost and loss of each, both better when lower.
    """
    front: list[int] = []
    for number in sorted(range(len(points)), key=lambda number: points[number]):
        if not front or points[number][1] < points[front[-1]][1] - _EQUAL:
            front.append(number)
    return front
