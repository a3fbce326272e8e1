"""Which method is best at each data budget, against fine-tuning, and what does it cost?"""

from collections import Counter
from typing import Any

import pandas as pd

from studykit.findings import Finding, format_interval, labels
from studykit.findings._lines import (
    Line,
    choose_headline,
    finished,
    lines_of,
    require_one,
    require_one_setting,
    without_metric,
)
from studykit.scorers import Metric, metric
from studykit.statistics import Interval

_COST = ("student_tokens", "teacher_tokens", "generated_tokens", "scored_tokens", "train_s")


def methods(frame: pd.DataFrame, *, baseline: str = "sft", score: str = "exact_match", nll: str = "nll") -> Finding:
    """Return score, NLL and cost of every method by budget, best first, and its paired difference to the baseline.

    Only finished runs count. Runs of one method with different options are different methods, named by what differs.
    Methods are paired with the baseline on seeds; with one seed there is no interval.

    Args:
        frame: from `results.load`.
        baseline: the method to compare with.
        score: the first metric, by which methods are ranked; where it is the same in every run, the second is.
        nll: the second metric.

    Raises:
        ValueError: the rows mix students, or hold a method, budget and seed twice.
    """
    score, why = choose_headline(frame, score, nll)
    runs = finished(frame, score)
    require_one(runs, "student", "methods")
    runs = runs.assign(name=labels(runs))
    require_one_setting(runs)
    counted = [column for column in _COST if column in runs]
    runs = runs.assign(**{column: runs[column].fillna(0) for column in counted})
    direction = -1 if metric(score).higher_is_better else 1
    lines = lines_of(runs.sort_values("name", kind="stable"), baseline, score, nll, counted)
    lines.sort(key=lambda line: (line.budget, direction * line.score.mean.mean if line.score else 0.0))
    numbers = {"baseline": baseline, "score": score, "lines": [_plain(line) for line in lines]}
    table = pd.DataFrame([_shown(line, baseline, score, nll) for line in lines])
    sentence = without_metric(frame, score) if runs.empty else ""
    digits = {"score": metric(score).digits, "NLL": metric(nll).digits}
    return Finding(table, why + (sentence or _sentence(lines, baseline, metric(score))), numbers, digits)


def _plain(line: Line) -> dict[str, Any]:
    identity = {"budget_examples": line.budget, "method": line.name, "seeds": line.seeds}
    return identity | line.plain() | {"cost": line.means}


def _shown(line: Line, baseline: str, score: str, nll: str) -> dict[str, Any]:
    """Return one line of the table as people read it."""
    cost = {name: line.means.get(name) or 0.0 for name in _COST}
    digits = {"score": metric(score).digits, "NLL": metric(nll).digits}
    shown: dict[str, Any] = {"budget": line.budget, "method": line.name, "seeds": line.seeds}
    for name, comparison in (("score", line.score), ("NLL", line.nll))[score == nll :]:
        shown[name] = None if comparison is None else round(comparison.mean.mean, digits[name])
        difference = None if comparison is None else comparison.difference
        shown[f"{name} - {baseline}"] = format_interval(difference, digits[name], sign=True)
    return shown | {
        "generated": round(cost["generated_tokens"]),
        "teacher reads": round(cost["teacher_tokens"] + cost["scored_tokens"]),
        "seconds": round(cost["train_s"]),
    }


def _sentence(lines: list[Line], baseline: str, score: Metric) -> str:
    compared = [line for line in lines if _difference(line) is not None]
    if not compared:
        return f"No budget has both {baseline} and another method finished yet."
    budgets = Counter(line.budget for line in compared)
    parts = [_at_budget([line for line in compared if line.budget == budget], baseline, score) for budget in budgets]
    most = max(budgets.values())
    if most > 5:
        parts.append(f"With {most} comparisons at 95%, about {most / 20:.0f} would be clear of zero by chance alone.")
    return " ".join(parts)


def _at_budget(compared: list[Line], baseline: str, score: Metric) -> str:
    """Name the best method of one budget, and count those clear of zero."""
    best, differences = compared[0], [difference for line in compared if (difference := _difference(line))]
    first = differences[0]
    ahead = f"{best.name} is best, "
    better, sign = ("above", 1) if score.higher_is_better else ("below", -1)
    not_ahead = f"no method is {better} {baseline}: {best.name} comes nearest, "
    text = f"At {best.budget:,} examples {ahead if sign * first.mean >= 0 else not_ahead}"
    seeds = f"n = {first.n} seed{'s' if first.n > 1 else ''}"
    text += f"{format_interval(first, score.digits, sign=True)} {score.unit} from {baseline} ({seeds})"
    bounded = [difference for difference in differences if difference.n > 1]
    if bounded:
        above, below = (sum(d.excludes_zero and d.mean * sign > 0 for d in bounded) for sign in (1, -1))
        text += f"; of {len(bounded)} methods {above} are above {baseline} and {below} below, clear of zero"
    return f"{text}."


def _difference(line: Line) -> Interval | None:
    return None if line.score is None else line.score.difference
