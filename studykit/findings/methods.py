"""Which method is best at each data budget, against fine-tuning, and what does it cost?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from studykit.findings import Finding, format_interval, judge, labels
from studykit.findings._costs import COSTS, cost_cells, plain_costs, with_costs, without_unused
from studykit.findings._lines import (
    Line,
    choose_headline,
    compare_with,
    finished,
    intervals_over,
    lines_of,
    one_seed_sentence,
    require_one,
    require_one_setting,
    without_metric,
)
from studykit.findings._verdicts import cells_of, count_words, missed_sentence
from studykit.scorers import Metric, metric
from studykit.statistics import Interval
from studykit.statistics.verdicts import Verdict

FIGURE = "methods_compared"
FIGURE_PER_BUDGET = True
Judged = Sequence[tuple[Line, Verdict | None]]


def methods(
    frame: pd.DataFrame,
    *,
    baseline: str = "sft",
    score: str = "exact_match",
    nll: str = "nll",
    tie: float | None = None,
    folder: str | Path | None = None,
) -> Finding:
    """Return score, NLL and cost of every method by budget, best first, its difference to the baseline, and verdicts.

    Only finished runs count. Runs of one method with different options are different methods, named by what differs.
    Methods are paired with the baseline on seeds; with one seed there is no interval. The planned contrasts are all
    methods at all budgets.

    Args:
        frame: from `results.load`.
        baseline: the method to compare with.
        score: the first metric, by which methods are ranked; where it is the same in every run, the second is.
        nll: the second metric.
        tie: largest difference that does not matter, in the unit of the first metric; None: the metric's.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.

    Raises:
        ValueError: the rows mix students, or hold a method, budget and seed twice.
    """
    score, why, tie = choose_headline(frame, score, nll, tie)
    runs = finished(frame, score)
    require_one(runs, "student", "methods")
    runs = runs.assign(name=labels(runs))
    require_one_setting(runs)
    runs = with_costs(runs)
    direction = -1 if metric(score).higher_is_better else 1
    lines = lines_of(runs.sort_values("name", kind="stable"), baseline, score, nll, COSTS, folder)
    lines.sort(key=lambda line: (line.budget, direction * line.score.mean.mean if line.score else 0.0))
    contrasts = {_contrast(line, baseline): d for line in lines if (d := _difference(line)) is not None}
    found = judge(contrasts, score, tie)
    judged = [(line, found.get(_contrast(line, baseline))) for line in lines]
    numbers = {"baseline": baseline, "score": score, "intervals": intervals_over(lines)}
    numbers["lines"] = [_plain(line, one) for line, one in judged]
    table = without_unused(pd.DataFrame([_shown(line, one, baseline, score, nll) for line, one in judged]))
    sentence = without_metric(frame, score) if runs.empty else ""
    if set(runs["method"]) == {baseline}:
        sentence = _alone(runs, lines, baseline, metric(score))
    digits = {"score": metric(score).digits, "NLL": metric(nll).digits, "GiB": 2}
    text = why + (sentence or _sentence(judged, baseline, metric(score))) + one_seed_sentence(lines, baseline)
    sides = compare_with(baseline, lines)
    compared = {_contrast(line, baseline): sides[line.budget, line.name] for line, one in judged if one}
    return Finding(table, text, numbers, digits, found, compared)


def _contrast(line: Line, baseline: str) -> str:
    return f"{line.name} - {baseline} at {line.budget:,} examples"


def _plain(line: Line, found: Verdict | None) -> dict[str, Any]:
    identity = {"budget_examples": line.budget, "method": line.name, "seeds": line.seeds}
    return identity | line.plain() | {"cost": plain_costs(line.means)} | ({"verdict": found.plain()} if found else {})


def _shown(line: Line, found: Verdict | None, baseline: str, score: str, nll: str) -> dict[str, Any]:
    """Return one line of the table as people read it."""
    digits = {"score": metric(score).digits, "NLL": metric(nll).digits}
    shown: dict[str, Any] = {"budget": line.budget, "method": line.name, "seeds": line.seeds}
    for name, comparison in (("score", line.score), ("NLL", line.nll))[score == nll :]:
        shown[name] = None if comparison is None else round(comparison.mean.mean, digits[name])
        difference = None if comparison is None else comparison.difference
        shown[f"{name} - {baseline}"] = format_interval(difference, digits[name], sign=True)
        shown |= cells_of(found)  # beside the first difference, which it is about
    return shown | cost_cells(line.means)


def _sentence(judged: Judged, baseline: str, score: Metric) -> str:
    compared = [(line, found) for line, found in judged if found is not None]
    if not compared:
        return f"No budget has both {baseline} and another method finished yet."
    budgets = dict.fromkeys(line.budget for line, _ in compared)
    parts = [_at_budget([pair for pair in compared if pair[0].budget == budget], baseline, score) for budget in budgets]
    if len(compared) > 1:
        parts.append(f"Holm's correction is over all {len(compared)} contrasts.")
    return " ".join(parts) + missed_sentence(found for _, found in compared)


def _alone(runs: pd.DataFrame, lines: Sequence[Line], baseline: str, score: Metric) -> str:
    """Name the best setting of the only method, and its runs: they may be what another study starts from."""
    best = {
        line.budget: line for line in reversed(lines) if line.score
    }  # the lines of a budget have the best one first
    parts = [f"Only {baseline} has finished, so nothing is compared."]
    for budget, line in sorted(best.items()):
        of_line = runs[(runs["budget_examples"] == budget) & (runs["name"] == line.name)]
        own = ", ".join(sorted(of_line["run_id"]))
        value = f"{format_interval(line.score.mean, score.digits)} {score.unit}".strip() if line.score else ""
        several = "runs" if line.seeds > 1 else "run"
        parts.append(f"At {budget:,} examples the best {score.title} is {value}, of {line.name} ({several} {own}).")
    return " ".join(parts)


def _at_budget(compared: list[tuple[Line, Verdict]], baseline: str, score: Metric) -> str:
    """Name the best method of one budget with its verdict, and count the verdicts."""
    best, first = compared[0]
    ahead = f"{best.name} is best, "
    better, sign = ("above", 1) if score.higher_is_better else ("below", -1)
    not_ahead = f"no method is {better} {baseline}: {best.name} comes nearest, "
    text = f"At {best.budget:,} examples {ahead if sign * first.difference.mean >= 0 else not_ahead}"
    seeds = f"n = {first.difference.n} seed{'s' if first.difference.n > 1 else ''}"
    text += (
        f"{format_interval(first.difference, score.digits, sign=True)} {score.unit} from {baseline} ({seeds}): {first}"
    )
    if len(compared) > 1:
        text += f"; of {len(compared)} methods {count_words(found for _, found in compared)}"
    return f"{text}."


def _difference(line: Line) -> Interval | None:
    return None if line.score is None else line.score.difference
