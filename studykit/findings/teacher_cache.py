"""How much of a teacher must be kept for distillation to lose nothing, in bytes per response token?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from studykit.findings import Finding, format_interval
from studykit.findings._costs import COSTS, cost_cells, plain_costs, with_costs, without_unused
from studykit.findings._lines import (
    Comparison,
    Line,
    choose_headline,
    finished,
    intervals_over,
    lines_of,
    require_one,
    require_one_setting,
    without_metric,
)
from studykit.findings._verdicts import cells_of, judge_metrics, missed_sentence
from studykit.scorers import metric
from studykit.statistics import Interval
from studykit.statistics.verdicts import Verdict

FIGURE = "difference_against_bytes"
FIGURE_PER_BUDGET = True
Judged = Sequence[tuple[Line, Sequence[Verdict]]]

DENSE = "dense"
_MEASURED = {"bytes": "bytes_per_position", "kept_mass": "kept_mass", "cosine": "gradient_cosine"}
_FORMS = ("top_k", "samples")


def teacher_cache(
    frame: pd.DataFrame,
    *,
    baseline: str = "sft",
    arm: str = "kd",
    score: str = "exact_match",
    nll: str = "nll",
    tie: float | None = None,
    folder: str | Path | None = None,
) -> Finding:
    """Return size, quality and cost of every signal by budget, its difference to the dense live teacher, and verdicts.

    A signal is what a student gets from its teacher: nothing (the baseline), the live teacher's whole distribution
    (dense), its k likeliest tokens, or samples. Only finished runs with one stage count; pairs share a seed. The
    planned contrasts are all signals at all budgets in both metrics.

    Args:
        frame: from `results.load`; sizes are there where `study.measure_signals` has measured them.
        baseline: the method without a teacher.
        arm: the method that gets all the other signals.
        score: the first metric.
        nll: the second metric.
        tie: largest difference that does not matter, in the unit of the first metric; None: the metric's.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.

    Raises:
        ValueError: the rows mix students or options, or hold a signal, budget and seed twice.
    """
    compared = frame[frame["method"].isin([baseline, arm])]
    runs = finished(compared, score)
    require_one(runs, "student", "teacher_cache")
    runs = runs.assign(name=_signals(runs, baseline))
    require_one_setting(runs, [f"teacher_{form}" for form in _FORMS])
    columns = (*_MEASURED.values(), "teacher_tokens", "cache_tokens", *COSTS)
    lines = lines_of(with_costs(runs), DENSE, score, nll, columns, folder)
    lines.sort(key=lambda line: (line.budget, *_rank(line, baseline)))
    metrics = (score, nll)
    contrasts = {
        _contrast(line, name): (name, difference)
        for line in lines
        for name, difference in zip(metrics, _differences(line), strict=False)
    }
    found = judge_metrics(contrasts, {score: tie})
    judged = [
        (line, [found[name] for name in (_contrast(line, m) for m in metrics) if name in found]) for line in lines
    ]
    numbers = {"baseline": baseline, "score": score, "intervals": intervals_over(lines)}
    numbers["lines"] = [_plain(*pair, baseline) for pair in judged]
    table = without_unused(pd.DataFrame([_shown(*pair, baseline, score, nll) for pair in judged]))
    text = without_metric(compared, score) if runs.empty else ""
    why, digits = choose_headline(runs, score, nll)[1], {"score": metric(score).digits, "GiB": 2}
    text = text or _sentence(judged, baseline, metric(score).unit) + missed_sentence(found.values())
    return Finding(table, why + text, numbers, digits, found)


def _contrast(line: Line, score: str) -> str:
    return f"{line.name} - {DENSE} at {line.budget:,} examples in {score}"


def _signals(runs: pd.DataFrame, baseline: str) -> pd.Series:
    """Return the signal of each run: the baseline's name, `top_k=8`, `samples=16` or dense."""
    empty = pd.Series(None, index=runs.index, dtype=object)
    counts = [runs.get(f"teacher_{form}", empty) for form in _FORMS]
    names = [
        baseline if method == baseline else _signal(dict(zip(_FORMS, kept, strict=True)))
        for method, *kept in zip(runs["method"], *counts, strict=True)
    ]
    return pd.Series(names, index=runs.index, dtype=object)


def _signal(kept: dict[str, Any]) -> str:
    return next((f"{form}={count:.0f}" for form, count in kept.items() if pd.notna(count)), DENSE)


def _rank(line: Line, baseline: str) -> tuple[int, float, str]:
    size = line.means[_MEASURED["bytes"]]
    return {baseline: 0, DENSE: 1}.get(line.name, 2), float("inf") if size is None else size, line.name


def _plain(line: Line, found: Sequence[Verdict], baseline: str) -> dict[str, Any]:
    """Return a line with its verdicts as plain JSON data."""
    identity = {"budget_examples": line.budget, "signal": line.name, "seeds": line.seeds}
    measured = {name: line.means[column] for name, column in _MEASURED.items()}
    verdicts = {"verdicts": [one.plain() for one in found]} if found else {}
    read = _teacher_tokens(line, baseline)
    cost = plain_costs({**line.means, "teacher_reads": read})
    return identity | measured | {"teacher_tokens": read, "cost": cost} | line.plain() | verdicts


def _teacher_tokens(line: Line, baseline: str) -> float | None:
    """Return the tokens that went through the teacher; for a cache those that fill an empty one."""
    if line.name == baseline:
        return 0.0
    return line.means["teacher_tokens" if line.name == DENSE else "cache_tokens"]


def _shown(line: Line, found: Sequence[Verdict], baseline: str, score: str, nll: str) -> dict[str, Any]:
    """Return one line of the table as people read it."""
    points, nats = (Comparison(Interval(0, None, None, 0)) if c is None else c for c in (line.score, line.nll))
    digits, (first, second) = metric(nll).digits, (*found, None, None)[:2]
    return {
        "budget": line.budget,
        "signal": line.name,
        "seeds": line.seeds,
        "bytes": _text(line.means[_MEASURED["bytes"]], ".1f"),
        "kept mass": _text(line.means[_MEASURED["kept_mass"]], ".4f"),
        "cosine": _text(line.means[_MEASURED["cosine"]], ".4f"),
        "score": round(points.mean.mean, metric(score).digits),
        "score - dense": format_interval(points.difference, metric(score).digits, sign=True),
        **cells_of(first),
        "NLL": "" if line.nll is None else f"{nats.mean.mean:.{digits}f}",
        "NLL - dense": format_interval(nats.difference, digits + 1, sign=True),
        **cells_of(second, "NLL "),
        **cost_cells(line.means | {"teacher_reads": _teacher_tokens(line, baseline)}),
    }


def _text(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _sentence(judged: Judged, baseline: str, unit: str) -> str:
    parts = []
    for budget in dict.fromkeys(line.budget for line, _ in judged):
        part = [(line, found) for line, found in judged if line.budget == budget and found]
        sized = [pair for pair in part if pair[0].means[_MEASURED["bytes"]] is not None and len(pair[1]) == 2]
        if sized:
            without = next((pair for pair in part if pair[0].name == baseline), None)
            parts.append(f"At {budget:,} examples {_smallest(sized, unit)}{_without(without, unit)}")
    if not parts:
        return f"No budget has both {DENSE} and a signal of known size finished yet."
    return " ".join(parts)


def _smallest(sized: Judged, unit: str) -> str:
    """Name the smallest signal that ties with the dense teacher in both metrics, those that lose, and all others."""
    if not any(one.p_value is not None for _, found in sized for one in found):
        return f"one seed gives no interval: no signal can be said to do as well as the {DENSE} teacher, or worse."
    ties = [line for line, found in sized if all(one.word == "tie" for one in found)]
    if ties:
        score, nll = _differences(ties[0])
        text = (
            f"the smallest signal that ties with the {DENSE} teacher in score and NLL is {ties[0].name}, "
            f"{ties[0].means[_MEASURED['bytes']]:.1f} bytes a response token: {format_interval(score, sign=True)} "
            f"{unit}, {format_interval(nll, 4, sign=True)} nats (n = {score.n} seeds)."
        )
    else:
        text = f"no signal ties with the {DENSE} teacher in both score and NLL."
    worse = [line.name for line, found in sized if any(one.word == "hurts" for one in found)]
    open_ = [line.name for line, found in sized if line not in ties and line.name not in worse]
    text += f" Worse in one of them: {', '.join(worse)}." if worse else ""
    return text + (f" Cannot tell: {', '.join(open_)}." if open_ else "")


def _differences(line: Line) -> list[Interval]:
    """Return the differences in score and NLL to the dense teacher, as far as there are any; none without a score."""
    score, nll = (None if c is None else c.difference for c in (line.score, line.nll))
    return [] if score is None else [score] if nll is None else [score, nll]


def _without(pair: tuple[Line, Sequence[Verdict]] | None, unit: str) -> str:
    if pair is None:
        return ""
    line, found = pair
    score, *nll = _differences(line)
    nats = f", {format_interval(nll[0], 4, sign=True)} nats: {found[1]}" if nll else ""
    return f" No teacher at all: {format_interval(score, sign=True)} {unit}: {found[0]}{nats}."
