"""How does the gain of distillation depend on the teacher, and on the gap between teacher and student?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from studykit.findings import Finding, format_interval
from studykit.findings._contrasts import Contrast, Question, by_budget, difference_of_gains, extremes, slope
from studykit.findings._lines import choose_headline, finished, require_one
from studykit.findings._sentences import describe
from studykit.statistics import Interval
from studykit.statistics.verdicts import Verdict

FIGURE = "gain_against_gap"


def teacher_strength(
    frame: pd.DataFrame,
    *,
    baseline: str = "sft",
    arm: str = "kd",
    score: str = "exact_match",
    nll: str = "nll",
    tie: float | None = None,
    folder: str | Path | None = None,
) -> Finding:
    """Return every teacher's score, its gap to the students, and what they gain from it, weakest teacher first.

    The gap is the teacher's score minus that of the students without a teacher. Pairs share seed and budget.

    Args:
        frame: from `results.load`.
        baseline: the method without a teacher.
        arm: the method with one.
        score, nll: the two metrics.
        tie: largest difference that does not matter, in the unit of the first; None: the metric's.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.

    Raises:
        ValueError: the rows mix students or options.
    """
    runs = finished(frame[frame["method"].isin([baseline, arm])], score)
    require_one(runs, "student", "teacher_strength")
    score, why, tie = choose_headline(runs, score, nll, tie)
    names = runs["method"].where(runs["method"] == baseline, runs["teacher"])
    question = Question(
        baseline=baseline, score=score, nll=nll, tie=tie, folder=folder, setting="teacher", explained=["inputs"]
    )
    rows = question.contrasts(runs.assign(name=names))
    rows.sort(key=lambda row: (row.line.budget, row.line.name != baseline, row.sign * (row.teacher or 0)))
    parts = by_budget(rows)
    pairs = {_name(part): (part[-1], part[-2]) for part in parts if part[1:]}
    found = question.judge(rows, {name: difference_of_gains(*pair) for name, pair in pairs.items()})
    slopes = {str(part[0].line.budget): _slope(part) for part in parts}
    sentences = [_at_budget(part, found, slopes[str(part[0].line.budget)]) for part in extremes(rows)]
    plain = {budget: vars(interval) for budget, interval in slopes.items() if interval}
    return question.answer(frame, rows, found, why, " ".join(sentences), pairs=pairs, gain_per_gap=plain)


def _name(part: Sequence[Contrast]) -> str:
    return f"{part[-1].line.name} - {part[-2].line.name} at {part[0].line.budget:,} examples"


def _slope(part: Sequence[Contrast]) -> Interval | None:
    """Return the gain for each point of gap among teachers that are not below the students; others bend the line."""
    ahead = [(row, row.gap) for row in part if row.gap is not None and row.gap >= 0]
    return slope([row for row, _ in ahead], [gap for _, gap in ahead])


def _at_budget(part: Sequence[Contrast], verdicts: Mapping[str, Verdict], line: Interval | None) -> str:
    gains = [f"{row.line.name}{_gap(row)} {describe(verdicts[row.key])}" for row in part]
    text = f"At {part[0].line.budget:,} examples students gain from {'; from '.join(gains)}."
    if part[1:] and (more := verdicts.get(_name(part))):
        text += f" The strongest teacher against the next: {describe(more)}."
    if line is not None:
        goes_with = format_interval(line, 2, sign=True)
        text += f" Among teachers not below the students, each point of gap goes with {goes_with} points of gain."
    return text


def _gap(row: Contrast) -> str:
    return "" if row.gap is None else f" (gap {row.gap:+.1f})"
