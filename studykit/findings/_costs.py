"""What runs cost, in the columns that every finding shows beside its scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

COSTS = {
    "student_tokens": "student reads",
    "teacher_reads": "teacher reads",
    "generated_tokens": "generated",
    "written_tokens": "written for the data",
    "train_s": "seconds",
    "peak_mem_gib": "GiB",
    "cache_bytes": "cache bytes",
}
"""Columns of cost, of `with_costs`, by what tables call them."""


def with_costs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with the tokens that their teachers read and wrote, and the bytes of a cache of their signal.

    What selected examples or filled a cache is read too. What a teacher wrote for the data counts for each run that
    trained on it, also where another one had it written. Bytes are there where `study.measure_signals` measured them.
    """
    empty = pd.Series(None, index=runs.index, dtype=float)
    read = [runs.get(name, empty).astype(float).fillna(0.0) for name in ("teacher_tokens", "scored_tokens")]
    size = runs.get("bytes_per_position", empty).astype(float) * runs.get("budget_tokens", empty).astype(float)
    written = [runs.get(name, empty).astype(float) for name in ("synthetic_tokens", "cached_synthetic_tokens")]
    return runs.assign(teacher_reads=sum(read), cache_bytes=size, written_tokens=written[0].fillna(written[1]))


def cost_cells(means: Mapping[str, float | None]) -> dict[str, Any]:
    """Return the mean costs of a setting as a table shows them; what was not measured is 0, but for memory."""
    return {title: _cell(name, means.get(name)) for name, title in COSTS.items()}


def without_unused(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the columns of what nothing in it cost."""
    costs = [name for name in COSTS.values() if name in table]
    return table.drop(columns=[name for name in costs if not table[name].fillna(0).any()])


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
    if name == "peak_mem_gib":
        return None if value is None else round(value, 2)
    return round(value or 0)
