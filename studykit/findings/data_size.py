"""Does distillation beat fine-tuning at each data budget, and where does its advantage end?"""

from typing import Any

import pandas as pd

from studykit.findings import Finding, format_interval
from studykit.findings._lines import (
    Comparison,
    Line,
    choose_headline,
    lines_of,
    require_one,
    require_one_setting,
    without_metric,
)
from studykit.scorers import Metric, metric
from studykit.statistics import Interval, crossover


def data_size(
    frame: pd.DataFrame,
    *,
    baseline: str = "sft",
    arm: str = "kd",
    score: str = "exact_match",
    nll: str = "nll",
    teacher: str | None = None,
    student: str | None = None,
) -> Finding:
    """Return score and NLL by budget for both arms, and the paired difference arm - baseline with 95% t interval.

    Only finished runs with one stage count. Arms are paired on seeds; a budget with one seed has no interval.

    Args:
        frame: from `results.load`.
        baseline, arm: methods to compare.
        score: the first metric; where it is the same in every run, the second counts.
        nll: the second metric.
        teacher, student: names to keep; None keeps all, and more than one is refused.

    Raises:
        ValueError: the rows mix students or teachers, or runs of one method with different options, so that no pair is
            comparable.
    """
    runs = arms(frame, baseline, arm, teacher=teacher, student=student)
    score, why = choose_headline(runs, score, nll)
    lines = [line for line in lines_of(runs, baseline, score, nll) if line.name == arm and _has_pairs(line.score)]
    sign = 1 if metric(score).higher_is_better else -1
    end, of_teacher = _end(lines, sign), _teacher_score(runs, score)
    numbers = {
        "baseline": baseline,
        "arm": arm,
        "score": score,
        "budgets": [_plain(line, baseline, arm) for line in lines],
        "advantage_ends": None if end is None else vars(end),
        "teacher_score": of_teacher,
    }
    sentence = _sentence(lines, end, baseline, arm, metric(score)) if lines else without_metric(runs, score)
    sentence = sentence or f"No budget has both {baseline} and {arm} finished yet."
    if of_teacher is not None and lines:
        sentence += f" The teacher itself scores {of_teacher:.{metric(score).digits}f}."
    table = pd.DataFrame([_shown(line, baseline, arm, score, nll) for line in lines])
    return Finding(table, why + sentence, numbers, _digits(baseline, arm, score, nll))


def arms(
    frame: pd.DataFrame, baseline: str, arm: str, *, teacher: str | None = None, student: str | None = None
) -> pd.DataFrame:
    """Return the finished runs of two methods that may be compared, with their method as `name`.

    Raises:
        ValueError: they mix students, teachers or options.
    """
    runs = frame[(frame["status"] == "done") & frame["method"].isin([baseline, arm])]
    runs = runs if student is None else runs[runs["student"] == student]
    runs = runs if teacher is None else runs[runs["teacher"].isna() | (runs["teacher"] == teacher)]
    for column in ("student", "teacher"):
        require_one(runs, column, "data_size", "name one")
    runs = runs.assign(name=runs["method"])
    require_one_setting(runs)
    return runs


def _end(lines: list[Line], sign: int) -> Interval | None:
    """Return the budget at which the advantage ends, where it does; sign is -1 where a lower score is better."""
    if len(lines) < 2:
        return None
    gains = [{seed: sign * value for seed, value in _pairs(line.score).by_seed.items()} for line in lines]
    return crossover([line.budget for line in lines], gains)


def _has_pairs(comparison: Comparison | None) -> bool:
    return comparison is not None and comparison.difference is not None


def _pairs(comparison: Comparison | None) -> Any:
    """Return a comparison that is known to have pairs."""
    assert _has_pairs(comparison)
    return comparison


def _teacher_score(runs: pd.DataFrame, score: str) -> float | None:
    column = f"teacher_{score}"
    known = runs[column].dropna() if column in runs else runs["status"].iloc[:0]
    return metric(score).scale * float(known.mean()) if len(known) else None


def _shown(line: Line, baseline: str, arm: str, score: str, nll: str) -> dict[str, Any]:
    """Return one line of the table as people read it."""
    points, digits = _pairs(line.score), metric(score).digits
    shown: dict[str, Any] = {"budget": line.budget, "seeds": points.difference.n}
    if score != nll:
        shown |= {method: round(mean.mean, digits) for method, mean in _means(points, baseline, arm).items()}
        shown[f"{arm} - {baseline}"] = format_interval(points.difference, digits, sign=True)
    if _has_pairs(line.nll):
        nats, digits = _pairs(line.nll), metric(nll).digits
        shown |= {f"{method} NLL": round(mean.mean, digits) for method, mean in _means(nats, baseline, arm).items()}
        shown[f"NLL {arm} - {baseline}"] = format_interval(nats.difference, digits, sign=True)
    return shown


def _digits(baseline: str, arm: str, score: str, nll: str) -> dict[str, int]:
    """Return the decimals of the table's columns of numbers."""
    both = (baseline, arm)
    return dict.fromkeys(both, metric(score).digits) | dict.fromkeys((f"{x} NLL" for x in both), metric(nll).digits)


def _means(comparison: Any, baseline: str, arm: str) -> dict[str, Interval]:
    """Return the means of both arms over their pairs, the baseline's first."""
    return {baseline: comparison.paired[1], arm: comparison.paired[0]}


def _sentence(lines: list[Line], end: Interval | None, baseline: str, arm: str, score: Metric) -> str:
    arm, baseline = arm.upper(), baseline.upper()
    ends = (lines[0], lines[-1]) if len(lines) > 1 else (lines[0],)
    text = f"{arm} - {baseline}: {'; '.join(_at_budget(line, score) for line in ends)}."
    return f"{text} {_where_it_ends(lines, end, arm, score)}" if len(lines) > 1 else text


def _at_budget(line: Line, score: Metric) -> str:
    difference = _pairs(line.score).difference
    verdict = "" if difference.n < 2 else f", {'' if difference.excludes_zero else 'not '}clear of zero"
    seeds = f"n = {difference.n} seed{'s' if difference.n > 1 else ''}"
    shown = format_interval(difference, score.digits, sign=True)
    return f"{shown} {score.unit} at {line.budget:,} examples ({seeds}{verdict})"


def _where_it_ends(lines: list[Line], end: Interval | None, arm: str, score: Metric) -> str:
    differences = [_pairs(line.score).difference for line in lines]
    sign, better, worse = (1, "above", "below") if score.higher_is_better else (-1, "below", "above")
    if end is not None:
        if not any(difference.excludes_zero and sign * difference.mean > 0 for difference in differences):
            return "No budget has an advantage clear of zero, so none can be said to end."
        bounds = "" if end.low is None else f" [{end.low:,.0f}, {end.high:,.0f}]"
        seeds = len(set.intersection(*(set(_pairs(line.score).by_seed) for line in lines)))
        return f"Its advantage ends near {end.mean:,.0f}{bounds} examples ({end.n} of {seeds} seeds cross zero)."
    if all(sign * difference.mean > 0 for difference in differences):
        return f"The mean difference is {better} zero at every budget: no end of the advantage within these budgets."
    if all(sign * difference.mean <= 0 for difference in differences):
        return f"{arm} has no advantage at any of these budgets."
    return f"The difference changes sign, but never from {better} to {worse} zero: no end of an advantage can be named."


def _plain(line: Line, baseline: str, arm: str) -> dict[str, Any]:
    """Return a line as plain JSON data; seeds are text, since JSON has no other keys."""
    content: dict[str, Any] = {"budget_examples": line.budget}
    for key, comparison in (("score", line.score), ("nll", line.nll)):
        if _has_pairs(comparison):
            pairs = _pairs(comparison)
            content[key] = {method: vars(mean) for method, mean in _means(pairs, baseline, arm).items()}
            content[key]["difference"] = vars(pairs.difference)
            content[key]["by_seed"] = {str(seed): value for seed, value in pairs.by_seed.items()}
    return content
