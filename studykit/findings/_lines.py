"""What the findings share: the runs that count, and one line per setting and budget with its paired differences."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from studykit import results
from studykit.findings import Compared, differing_columns
from studykit.findings._items import ItemEvidence, item_evidence, items_sentence
from studykit.scorers import metric
from studykit.statistics import Interval, mean_interval, paired_difference


@dataclass(frozen=True)
class Comparison:
    """One metric of a setting, alone and against the baseline.

    Attributes:
        mean: over the setting's seeds.
        difference: setting - baseline over the seeds that both have; None without any, and for the baseline itself.
        by_seed: the differences by seed.
        paired: means of the setting and of the baseline over the seeds that both have.
        items: what the stored items add; the difference is over them too, where there are several seeds.
    """

    mean: Interval
    difference: Interval | None = None
    by_seed: dict[int, float] = field(default_factory=dict)
    paired: tuple[Interval, Interval] | None = None
    items: ItemEvidence | None = None


@dataclass(frozen=True)
class Line:
    """The runs of one setting at one budget.

    Attributes:
        budget: in examples.
        name: of the setting: a method, a signal.
        seeds: number of its runs.
        score, nll: the two metrics, in the units in which they are shown; None where one was not measured.
        means: mean of other columns over the seeds; None where one was not measured.
        runs: ids of its runs.
    """

    budget: int
    name: str
    seeds: int
    score: Comparison | None
    nll: Comparison | None
    means: dict[str, float | None]
    runs: frozenset[str] = frozenset()

    def plain(self) -> dict[str, Any]:
        """Return score, NLL and their differences as plain data, without what was not measured."""
        both = {"score": self.score, "nll": self.nll}
        content: dict[str, Any] = {}
        for key, comparison in both.items():
            if comparison is not None:
                content[key] = vars(comparison.mean)
                if comparison.difference is not None:
                    content[f"{key}_difference"] = vars(comparison.difference)
        return content


def finished(frame: pd.DataFrame, score: str) -> pd.DataFrame:
    """Return the finished runs that have a score."""
    return frame[(frame["status"] == "done") & frame[score].notna()] if score in frame else frame.iloc[:0]


def choose_headline(
    runs: pd.DataFrame, score: str, nll: str, tie: float | None = None
) -> tuple[str, str, float | None]:
    """Return the metric that the answer is about, a sentence where it is not the score that was named, and its margin.

    A score that is the same in every finished run, such as 0, tells nothing apart; where the NLL does, it is taken,
    whose margin is its own.
    """
    done = finished(runs, score)
    known = done[nll].dropna() if nll in done else done["status"].iloc[:0]
    if score == nll or len(done) < 2 or done[score].nunique() > 1 or known.nunique() < 2:
        return score, "", tie
    shown = metric(score)
    value = f"{float(done[score].iloc[0]) * shown.scale:.{shown.digits}f} {shown.unit}".strip()
    return nll, f"{shown.title} is {value} in every run, so the answer is about {metric(nll).title}. ", None


def without_metric(frame: pd.DataFrame, score: str) -> str:
    """Return a sentence that names the methods whose finished runs all lack a score; empty where there are none."""
    done = frame[frame["status"] == "done"]
    without = sorted(set(done["method"]) - set(finished(done, score)["method"]))
    measured = [name for name in results.metric_columns(done) if done[name].notna().any()]
    has = f"No finished run of {' and '.join(without)} has the metric {score}"
    return f"{has}; measured: {', '.join(measured) or 'none'}." if without else ""


def require_one(runs: pd.DataFrame, column: str, finding: str, remedy: str = "keep one") -> None:
    """Refuse runs with several values of a column.

    Raises:
        ValueError: naming them.
    """
    names = sorted(runs[column].dropna().unique()) if column in runs else []
    if len(names) > 1:
        raise ValueError(f"{finding} compares one {column}, the table holds {', '.join(names)}: {remedy}")


def require_one_setting(named: pd.DataFrame, explained: Collection[str] = ()) -> None:
    """Refuse runs of one name and budget that may not be averaged.

    Args:
        named: runs with a column `name`.
        explained: columns of options that the name stands for.

    Raises:
        ValueError: naming the options in which they differ, or the run that is listed twice.
    """
    columns = [*results.identity_columns(named), *results.schedule_columns(named)]
    columns = [column for column in columns if column not in explained]
    for (name, budget), part in named.groupby(["name", "budget_examples"]):
        which = f"the table holds {name} at {budget:,} examples"
        if differing := differing_columns(part, columns):
            raise ValueError(f"{which} with several values of {', '.join(differing)}: keep one of each")
        if part["seed"].duplicated().any():
            raise ValueError(f"{which} twice: keep one")


def lines_of(
    named: pd.DataFrame,
    baseline: str,
    score: str,
    nll: str,
    means: Collection[str] = (),
    folder: str | Path | None = None,
) -> list[Line]:
    """Return a line per budget and name, budgets increasing.

    Args:
        named: finished runs with a column `name`.
        baseline: the name that the others are compared with.
        score, nll: the two metrics.
        means: other columns to average.
        folder: of all results, whose stored items the differences are over too, where a metric is a plain mean of
            them; None: over seeds, on the items that were scored.
    """
    lines = []
    for budget in sorted(named["budget_examples"].dropna().unique()):
        part = named[named["budget_examples"] == budget]
        base = part[part["name"] == baseline]
        for name in part["name"].unique():
            own = part[part["name"] == name]
            first, second = (_compare(own, base, column, name == baseline, folder) for column in (score, nll))
            averages = {column: _mean(own, column) for column in means}
            ids = frozenset(own["run_id"]) if "run_id" in own else frozenset()
            lines.append(Line(int(budget), str(name), len(own), first, second, averages, ids))
    return lines


def compare_lines(line: Line, other: Line, where: Mapping[str, Any] | None = None) -> Compared:
    """Return the two sides of a contrast of two lines of one budget.

    Args:
        line: the setting.
        other: what it is compared with.
        where: values of the factors that both share.
    """
    return Compared(line.name, other.name, line.budget, line.runs, other.runs, where or {})


def compare_with(baseline: str, lines: Sequence[Line]) -> dict[tuple[int, str], Compared]:
    """Return every line with a difference to the baseline, by budget and name."""
    bases = {line.budget: line for line in lines if line.name == baseline}
    compared = [line for line in lines if line.score and line.score.difference and line.budget in bases]
    return {(line.budget, line.name): compare_lines(line, bases[line.budget]) for line in compared}


def intervals_over(lines: Iterable[Line]) -> dict[str, str]:
    """Return what the intervals of the differences in score and NLL are over; nothing of one that has no interval."""
    known = list(lines)
    found = {"score": [line.score for line in known], "nll": [line.nll for line in known]}
    return {name: over for name, comparisons in found.items() if (over := _over(comparisons))}


def one_seed_sentence(lines: Iterable[Line], baseline: str) -> str:
    """Return the test on items of the first setting whose single seed gives no interval; empty without any."""
    for line in lines:
        known = line.score
        if known and known.items and known.difference and known.difference.low is None:
            return items_sentence(known.items, baseline, line.name)
    return ""


def by_seed(runs: pd.DataFrame, name: str) -> dict[int, float]:
    """Return a metric by seed, in the unit in which it is shown; runs without it are left out."""
    if name not in runs:
        return {}
    known, scale = runs.dropna(subset=[name]), metric(name).scale
    return {int(seed): value * scale for seed, value in zip(known["seed"], known[name], strict=True)}


def _compare(
    own: pd.DataFrame, base: pd.DataFrame, name: str, is_baseline: bool, folder: str | Path | None
) -> Comparison | None:
    values, others = by_seed(own, name), by_seed(base, name)
    if not values:
        return None
    mean, seeds = mean_interval(list(values.values())), sorted(set(values) & set(others))
    if is_baseline or not seeds:
        return Comparison(mean)
    first, second = ({seed: side[seed] for seed in seeds} for side in (values, others))
    paired = mean_interval(list(first.values())), mean_interval(list(second.values()))
    difference, by_seed_ = paired_difference(first, second), {seed: first[seed] - second[seed] for seed in seeds}
    items = item_evidence(Path(folder), own, base, name) if folder is not None else None
    if items is not None and items.interval is not None:
        difference = replace(items.interval, p_value=difference.p_value)
    return Comparison(mean, difference, by_seed_, paired, items)


def _over(comparisons: Iterable[Comparison | None]) -> str:
    bounded = [one for one in comparisons if one and one.difference and one.difference.low is not None]
    with_items = [one for one in bounded if one.items and one.items.interval]
    if len(with_items) < len(bounded):
        return "seeds, and items where all runs store them" if with_items else "seeds"
    return "seeds and items" if bounded else ""


def _mean(own: pd.DataFrame, column: str) -> float | None:
    known = own[column].dropna() if column in own else own["seed"].iloc[:0]
    return float(known.mean()) if len(known) else None
