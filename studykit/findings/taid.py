"""Does TAID's moving target help, and more so where the student is much weaker than its teacher?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from studykit.findings import Finding, labels
from studykit.findings._contrasts import Contrast, Question, by_budget
from studykit.findings._lines import choose_headline, finished
from studykit.findings._verdicts import count_words
from studykit.statistics.verdicts import Verdict

FIGURE = "gain_against_gap"


def taid(
    frame: pd.DataFrame,
    *,
    baseline: str = "kd",
    start: str = "sft",
    score: str = "exact_match",
    nll: str = "nll",
    tie: float | None = None,
    folder: str | Path | None = None,
) -> Finding:
    """Return score and gain of every schedule by budget, student and teacher, smallest gap first.

    Args:
        frame: from `results.load`; runs of one method with different options are different schedules.
        baseline: the method that the schedules are compared with: the whole of the teacher from the first step on.
        start: the method without a teacher, from whose score the gap to the teacher is measured.
        score, nll: the two metrics.
        tie: largest difference that does not matter, in the unit of the first; None: the metric's.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.

    Raises:
        ValueError: the rows mix options that are no method's.
    """
    runs = finished(frame, score)
    score, why, tie = choose_headline(runs, score, nll, tie)
    factors = {"student": "student", "teacher": "teacher"}
    question = Question(
        baseline=baseline,
        score=score,
        nll=nll,
        tie=tie,
        folder=folder,
        setting="schedule",
        factors=factors,
        gap_from=start,
    )
    named = labels(runs.drop(columns=["student", "teacher", "inputs"], errors="ignore"))
    rows = question.contrasts(runs.assign(name=named))
    gaps = {(row.line.budget, *row.where.values()): row.gap for row in rows if row.gap is not None}
    rows.sort(key=lambda row: (row.line.budget, gaps.get((row.line.budget, *row.where.values()), 0.0), row.rank))
    found = question.judge(rows)
    sentence = " ".join(_at_budget(part, found, baseline) for part in by_budget(rows))
    return question.answer(frame, rows, found, why, sentence, label="student")


def _at_budget(part: Sequence[Contrast], verdicts: Mapping[str, Verdict], baseline: str) -> str:
    """Give every schedule's mean difference to the baseline at each gap, smallest first."""
    rows = [row for row in part if row.gap is not None and row.key in verdicts]
    if not rows:
        return ""
    varied = [name for name in ("student", "teacher") if len({row.where[name] for row in rows}) > 1]
    at = {(row.line.name, f"{row.gap:.1f}{_models(row, varied)}"): verdicts[row.key] for row in rows}
    places = dict.fromkeys(place for _, place in at)
    means = {
        name: ", ".join(_mean(at.get((name, place))) for place in places) for name in dict.fromkeys(n for n, _ in at)
    }
    differences = "; ".join(f"{name} {text}" for name, text in means.items())
    return (
        f"At {part[0].line.budget:,} examples, at gaps of {', '.join(places)}, the mean differences to {baseline} are: "
        f"{differences}. Of {len(rows)}: {count_words(at.values())}."
    )


def _models(row: Contrast, varied: Sequence[str]) -> str:
    """Return the models in which rows differ, in brackets: " (base-small)"."""
    models = " from ".join(str(row.where[name]).rpartition("/")[2] for name in varied)
    return f" ({models})" if models else ""


def _mean(found: Verdict | None) -> str:
    """Return a mean difference, and its word where it is decided."""
    if found is None:
        return "not measured"
    word = "" if found.word == "cannot tell" else f" ({found.word})"
    return f"{found.difference.mean:+.{found.digits}f}{word}"
