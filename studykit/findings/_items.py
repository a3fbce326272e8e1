"""Held-out items on which the arms of a comparison differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd


def items_apart(items: Mapping[str, Sequence[Mapping[str, Any]]], score: str, count: int = 10) -> pd.DataFrame:
    """Return the items whose scores differ most between two arms, each with both answers and scores.

    Args:
        items: by arm, from `results.read_items`; the first two are compared.
        score: the scorer.
        count: maximum number of items.

    Returns:
        Columns prompt, reference, and of each arm its answer under its name, and its score.

    >>> shared = {"id": "a", "prompt": "1+1?", "reference": "2"}
    >>> sft, kd = (shared | {"answer": x, "scores": {"exact_match": y}} for x, y in (("3", 0.0), ("2", 1.0)))
    >>> items_apart({"sft": [sft], "kd": [kd]}, "exact_match").values.tolist()
    [['1+1?', '2', '3', '2', 0.0, 1.0]]
    """
    arms = list(items)[:2]
    by_id = [{line["id"]: line for line in items[arm] if score in line.get("scores", {})} for arm in arms]
    rows = []
    for name in by_id[0]:
        both = [lines[name] for lines in by_id if name in lines]
        values = [line["scores"][score] for line in both]
        if len(set(values)) > 1:
            answers = {arm: line.get("answer") for arm, line in zip(arms, both, strict=True)}
            scores = {f"{arm} {score}": value for arm, value in zip(arms, values, strict=True)}
            rows.append({"prompt": both[0].get("prompt"), "reference": both[0].get("reference")} | answers | scores)
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    gap = (table.iloc[:, -1] - table.iloc[:, -2]).abs()
    return table.loc[gap.sort_values(ascending=False, kind="stable").index[:count]].reset_index(drop=True)
