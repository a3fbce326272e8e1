"""How much of a teacher must be kept for distillation to lose nothing, in bytes per response token?"""

from typing import Any

import pandas as pd

from studykit.findings import Finding, format_interval
from studykit.findings._lines import (
    Comparison,
    Line,
    choose_headline,
    finished,
    lines_of,
    require_one,
    require_one_setting,
    without_metric,
)
from studykit.scorers import metric
from studykit.statistics import Interval

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
) -> Finding:
    """Return size, quality and cost of every signal by budget, and its paired difference to the dense live teacher.

    A signal is what a student gets from its teacher: nothing (the baseline), the live teacher's whole distribution
    (dense), its k likeliest tokens, or samples. Only finished runs with one stage count; pairs share a seed.

    Args:
        frame: from `results.load`; sizes are there where `study.measure_signals` has measured them.
        baseline: the method without a teacher.
        arm: the method that gets all the other signals.
        score: the first metric.
        nll: the second metric.

    Raises:
        ValueError: the rows mix students or options, or hold a signal, budget and seed twice.
    """
    compared = frame[frame["method"].isin([baseline, arm])]
    runs = finished(compared, score)
    require_one(runs, "student", "teacher_cache")
    runs = runs.assign(name=_signals(runs, baseline))
    require_one_setting(runs, [f"teacher_{form}" for form in _FORMS])
    columns = (*_MEASURED.values(), "teacher_tokens", "cache_tokens")
    lines = lines_of(runs, DENSE, score, nll, columns)
    lines.sort(key=lambda line: (line.budget, *_rank(line, baseline)))
    numbers = {"baseline": baseline, "score": score, "lines": [_plain(line, baseline) for line in lines]}
    table = pd.DataFrame([_shown(line, baseline, score, nll) for line in lines])
    sentence = without_metric(compared, score) if runs.empty else ""
    why = choose_headline(runs, score, nll)[1]
    digits = {"score": metric(score).digits}
    return Finding(table, why + (sentence or _sentence(lines, baseline, metric(score).unit)), numbers, digits)


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


def _plain(line: Line, baseline: str) -> dict[str, Any]:
    """Return a line as plain JSON data."""
    identity = {"budget_examples": line.budget, "signal": line.name, "seeds": line.seeds}
    measured = {name: line.means[column] for name, column in _MEASURED.items()}
    return identity | measured | {"teacher_tokens": _teacher_tokens(line, baseline)} | line.plain()


def _teacher_tokens(line: Line, baseline: str) -> float | None:
    """Return the tokens that went through the teacher; for a cache those that fill an empty one."""
    if line.name == baseline:
        return 0.0
    return line.means["teacher_tokens" if line.name == DENSE else "cache_tokens"]


def _shown(line: Line, baseline: str, score: str, nll: str) -> dict[str, Any]:
    """Return one line of the table as people read it."""
    points, nats = (Comparison(Interval(0, None, None, 0)) if c is None else c for c in (line.score, line.nll))
    digits = metric(nll).digits
    return {
        "budget": line.budget,
        "signal": line.name,
        "seeds": line.seeds,
        "bytes": _text(line.means[_MEASURED["bytes"]], ".1f"),
        "kept mass": _text(line.means[_MEASURED["kept_mass"]], ".4f"),
        "cosine": _text(line.means[_MEASURED["cosine"]], ".4f"),
        "score": round(points.mean.mean, metric(score).digits),
        "score - dense": format_interval(points.difference, metric(score).digits, sign=True),
        "NLL": "" if line.nll is None else f"{nats.mean.mean:.{digits}f}",
        "NLL - dense": format_interval(nats.difference, digits + 1, sign=True),
        "teacher reads": _text(_teacher_tokens(line, baseline), ",.0f"),
    }


def _text(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _sentence(lines: list[Line], baseline: str, unit: str) -> str:
    parts = []
    for budget in dict.fromkeys(line.budget for line in lines):
        part = [line for line in lines if line.budget == budget and _differences(line)]
        sized = [line for line in part if line.means[_MEASURED["bytes"]] is not None and len(_differences(line)) == 2]
        if sized:
            without = next((line for line in part if line.name == baseline), None)
            parts.append(f"At {budget:,} examples {_smallest(sized, unit)}{_without(without, unit)}")
    if not parts:
        return f"No budget has both {DENSE} and a signal of known size finished yet."
    return " ".join(parts)


def _smallest(sized: list[Line], unit: str) -> str:
    """Name the smallest signal whose intervals contain zero, and what these intervals could not have shown."""
    bounded = [line for line in sized if all(end.low is not None for end in _differences(line))]
    if not bounded:
        return f"one seed gives no interval: no signal can be said to do as well as the {DENSE} teacher, or worse."
    alike = [not any(end.excludes_zero for end in _differences(line)) for line in bounded]
    if not any(alike):
        return f"every one of {len(bounded)} signals differs from the {DENSE} teacher in score or NLL, clear of zero."
    first = alike.index(True)
    line, larger = bounded[first], alike[first + 1 :]
    score, nll = _differences(line)
    points, nats = (((end.high or 0.0) - (end.low or 0.0)) / 2 for end in (score, nll))
    text = (
        f"the smallest signal without a clear difference to the {DENSE} teacher is {line.name}, "
        f"{line.means[_MEASURED['bytes']]:.1f} bytes a response token: {format_interval(score, sign=True)} {unit}, "
        f"{format_interval(nll, 4, sign=True)} nats (n = {score.n} seeds). A difference within {points:.1f} {unit} or "
        f"{nats:.4f} nats, the intervals' half widths, would not have been seen."
    )
    if larger and not all(larger):
        text += f" Of {len(larger)} larger signals {larger.count(False)} differ, clear of zero."
    return text


def _differences(line: Line) -> list[Interval]:
    """Return the differences in score and NLL to the dense teacher, as far as there are any; none without a score."""
    score, nll = (None if c is None else c.difference for c in (line.score, line.nll))
    return [] if score is None else [score] if nll is None else [score, nll]


def _without(line: Line | None, unit: str) -> str:
    if line is None:
        return ""
    score, *nll = _differences(line)
    nats = f", {format_interval(nll[0], 4, sign=True)} nats" if nll else ""
    return f" No teacher at all: {format_interval(score, sign=True)} {unit}{nats}."
