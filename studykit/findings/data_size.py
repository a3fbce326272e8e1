"""Does distillation beat fine-tuning at each data budget, and where does its advantage end?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from studykit.findings import Finding, format_interval, judge
from studykit.findings._costs import COSTS, costs_side_by_side, plain_costs, with_costs
from studykit.findings._data_size_text import describe
from studykit.findings._items import items_sentence
from studykit.findings._lines import (
    Comparison,
    Line,
    by_seed,
    choose_headline,
    compare_with,
    intervals_over,
    lines_of,
    require_one,
    require_one_setting,
    without_metric,
)
from studykit.findings._scaling import fits_of, plain_fits, scaling_sentence
from studykit.findings._verdicts import cells_of, missed_sentence, noise_sentence
from studykit.scorers import metric
from studykit.statistics import Crossover, Interval, crossover
from studykit.statistics.verdicts import Verdict, noise_floor

FIGURE = "score_against_budget"
_NLL = "nll"


def data_size(
    frame: pd.DataFrame,
    *,
    baseline: str = "sft",
    arm: str = "kd",
    score: str = "exact_match",
    teacher: str | None = None,
    student: str | None = None,
    tie: float | None = None,
    folder: str | Path | None = None,
) -> Finding:
    """Return score and NLL by budget for both arms, the paired difference arm - baseline and the verdicts on it.

    Only finished runs with one stage count. Arms are paired on seeds; a budget with one seed has no interval. The
    planned contrasts are the budgets.

    Args:
        frame: from `results.load`.
        baseline, arm: methods to compare.
        score: the metric of the verdicts; where it is the same in every run, NLL is.
        teacher, student: names to keep; None keeps all, and more than one is refused.
        tie: largest difference that does not matter, in the unit of this metric; None: the metric's.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.

    Raises:
        ValueError: the rows mix students or teachers, or runs of one method with different options, so that no pair is
            comparable.
    """
    runs = arms(frame, baseline, arm, teacher=teacher, student=student)
    score, why, tie = choose_headline(runs, score, _NLL, tie)
    both = lines_of(with_costs(runs), baseline, score, _NLL, COSTS, folder)
    lines = [line for line in both if line.name == arm and _has_pairs(line.score)]
    names = {line.budget: f"{arm} - {baseline} at {line.budget:,} examples" for line in lines}
    contrasts = {names[line.budget]: _pairs(line.score).difference for line in lines}
    found = judge(contrasts, score, tie)
    judged = list(zip(lines, found.values(), strict=True))
    end = _end(lines, 1 if metric(score).higher_is_better else -1)
    beside, more = _beside(runs, lines, baseline, arm, score)
    numbers = {
        "baseline": baseline,
        "arm": arm,
        "score": score,
        "intervals": intervals_over(lines),
        "budgets": [_plain(line, baseline, arm) | {"verdict": one.plain()} for line, one in judged],
        "lines": [_plain_side(line) for line in both],
        "advantage_ends": None if end is None else vars(end),
        **more,
    }
    if judged:
        text = f"{arm.upper()} - {baseline.upper()}: {describe(judged, end, arm, metric(score))}"
        text += missed_sentence(found.values()) + beside
    else:
        text = without_metric(runs, score) or f"No budget has both {baseline} and {arm} finished yet."
    shown = pd.DataFrame([_shown(line, one, baseline, arm, score) for line, one in judged])
    table = pd.concat([shown, _costs(both, lines, (baseline, arm))], axis=1)
    compared = {names[budget]: sides for (budget, _), sides in compare_with(baseline, both).items()}
    return Finding(table, why + text, numbers, _digits(baseline, arm, score), found, compared)


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


def _end(lines: list[Line], sign: int) -> Crossover | None:
    """Return the budget at which the advantage ends, where it does; sign is -1 where a lower score is better."""
    gains = [{seed: sign * value for seed, value in _pairs(line.score).by_seed.items()} for line in lines]
    return crossover([line.budget for line in lines], gains)


def _beside(runs: pd.DataFrame, lines: list[Line], baseline: str, arm: str, score: str) -> tuple[str, dict[str, Any]]:
    """Return noise, items, fits and the score of the teacher, as text and as numbers."""
    of_teacher, fits = _teacher_score(runs, score), fits_of(runs, score)
    numbers: dict[str, Any] = {"teacher_score": of_teacher, "scaling": plain_fits(fits)}
    if not lines:
        return "", numbers
    first, last = lines[0], max(line.budget for line in lines)
    of_baseline = runs[(runs["budget_examples"] == first.budget) & (runs["name"] == baseline)]
    noise = noise_floor(list(by_seed(of_baseline, score).values()), list(_pairs(first.score).by_seed.values()))
    items = _pairs(first.score).items
    numbers |= {"noise": None if noise is None else vars(noise), "items": None if items is None else items.plain()}
    text = noise_sentence(noise, baseline, f"at {first.budget:,} examples", score)
    text += items_sentence(items, baseline, arm) + scaling_sentence(fits, last, score)
    if of_teacher is not None:
        text += f" The teacher itself scores {of_teacher:.{metric(score).digits}f}."
    return text, numbers


def _costs(both: Sequence[Line], shown: Sequence[Line], names: Sequence[str]) -> pd.DataFrame:
    """Return the costs of both methods, a row for each budget that is shown."""
    means = {(line.name, line.budget): line.means for line in both}
    return costs_side_by_side({name: [means[name, line.budget] for line in shown] for name in names})


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


def _shown(line: Line, found: Verdict, baseline: str, arm: str, score: str) -> dict[str, Any]:
    """Return one line of the table as people read it."""
    points, digits = _pairs(line.score), metric(score).digits
    shown: dict[str, Any] = {"budget": line.budget, "seeds": points.difference.n}
    if score != _NLL:
        shown |= {method: round(mean.mean, digits) for method, mean in _means(points, baseline, arm).items()}
        shown |= {f"{arm} - {baseline}": format_interval(points.difference, digits, sign=True)}
        shown |= cells_of(found)
    if _has_pairs(line.nll):
        nats, digits = _pairs(line.nll), metric(_NLL).digits
        shown |= {f"{method} NLL": round(mean.mean, digits) for method, mean in _means(nats, baseline, arm).items()}
        shown[f"NLL {arm} - {baseline}"] = format_interval(nats.difference, digits, sign=True)
    return shown | cells_of(found)


def _digits(baseline: str, arm: str, score: str) -> dict[str, int]:
    """Return the decimals of the table's columns of numbers."""
    both = (baseline, arm)
    of_scores = dict.fromkeys(both, metric(score).digits)
    of_nll = dict.fromkeys((f"{method} NLL" for method in both), metric(_NLL).digits)
    return of_scores | of_nll | dict.fromkeys(("GiB", *(f"{method} GiB" for method in both)), 2)


def _means(comparison: Any, baseline: str, arm: str) -> dict[str, Interval]:
    """Return the means of both arms over their pairs, the baseline's first."""
    return {baseline: comparison.paired[1], arm: comparison.paired[0]}


def _plain_side(line: Line) -> dict[str, Any]:
    """Return one method at one budget with its costs, as plain JSON data."""
    identity = {"budget_examples": line.budget, "method": line.name, "seeds": line.seeds}
    return identity | line.plain() | {"cost": plain_costs(line.means)}


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
