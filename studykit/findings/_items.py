"""Held-out items: those on which the arms of a comparison differ, and what all of them leave open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studykit import results
from studykit.errors import InputError
from studykit.scorers import metric
from studykit.statistics import Interval
from studykit.statistics.items import McNemar, mcnemar, seeds_and_items


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


@dataclass(frozen=True)
class ItemEvidence:
    """What the stored items of paired runs add to their difference.

    Attributes:
        interval: over seeds and items, in the unit in which the metric is shown; None for one seed.
        mcnemar: by seed, where the scores are 0 or 1.
        differences: arm - baseline in the same unit, a row for each item, by its id, and a column for each seed.
    """

    interval: Interval | None
    mcnemar: dict[int, McNemar]
    differences: pd.DataFrame

    @property
    def items(self) -> int:
        """Number of items."""
        return len(self.differences)

    def plain(self) -> dict[str, Any]:
        """Return the same as plain JSON data; seeds are text, since JSON has no other keys."""
        tests = {str(seed): vars(test) for seed, test in self.mcnemar.items()}
        return {"items": self.items, "interval": self.interval and vars(self.interval), "mcnemar": tests}


def item_evidence(folder: Path, arm: pd.DataFrame, baseline: pd.DataFrame, score: str) -> ItemEvidence | None:
    """Return what the items add; None where they are not stored, or where the metric is no plain mean over them.

    Args:
        folder: of all results.
        arm, baseline: rows of finished runs, one for each seed.
        score: the metric.
    """
    columns = [name for name in ("seed", "run_id", "eval_id", score) if name in arm]
    first, second = ({run["seed"]: run for run in side[columns].to_dict("records")} for side in (arm, baseline))
    shared = sorted(first.keys() & second.keys())
    runs = [side[seed] for seed in shared for side in (first, second)]
    scores = [known for run in runs if (known := _item_scores(folder, run, score)) is not None]
    if not scores or len(scores) < len(runs):
        return None
    table = pd.concat(scores, axis=1, join="inner").sort_index()
    if table.empty:
        return None
    values = table.to_numpy().T.reshape(len(shared), 2, len(table))
    differences = metric(score).scale * (values[:, 0] - values[:, 1])
    is_right_or_wrong = np.isin(values, (0, 1)).all()
    tests = {int(s): mcnemar(*pair) for s, pair in zip(shared, values, strict=True)} if is_right_or_wrong else {}
    return ItemEvidence(seeds_and_items(differences), tests, pd.DataFrame(differences.T, table.index, shared))


def interval_of_gains(first: ItemEvidence | None, second: ItemEvidence | None) -> Interval | None:
    """Return how much more the first gains than the second, over the seeds and items of both; None without items.

    Args:
        first, second: of two paired differences in one metric.
    """
    if first is None or second is None:
        return None
    apart = (first.differences - second.differences).dropna(axis="columns", how="all").dropna()
    return seeds_and_items(apart.to_numpy().T)


def items_sentence(evidence: ItemEvidence | None, baseline: str, arm: str) -> str:
    """Return what the items add in words, with a space before it: that they are counted, or the test of one seed."""
    if evidence is None:
        return ""
    if evidence.interval is not None:
        return f" Intervals are over seeds and items ({evidence.items:,})."
    return "".join(
        f" Of {evidence.items:,} items {arm} alone is right on {test.arm} and {baseline} alone on {test.baseline} "
        f"(exact McNemar p = {test.p_value:.2g}), with this one seed."
        for test in evidence.mcnemar.values()
    )


def _item_scores(folder: Path, run: Mapping[Any, Any], score: str) -> pd.Series | None:
    """Return a run's scores by item; None where they are not stored or do not average to the run's metric."""
    scores = _read_scores(folder, run["run_id"], run.get("eval_id")).get(score, pd.Series(dtype=float)).dropna()
    return scores if len(scores) and abs(scores.mean() - run[score]) < 1e-4 else None


@lru_cache(maxsize=512)
def _read_scores(folder: Path, run_id: str, eval_id: str | None) -> pd.DataFrame:
    """Return the stored scores of a finished evaluation, which never change: a row for each item that has some."""
    try:
        return results.read_item_scores(results.find_run(folder, run_id), eval_id)
    except InputError:
        return pd.DataFrame()
