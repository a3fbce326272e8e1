"""Which divergence, at a low and at a high budget: forward, reverse or between, sharp or soft, alone or with labels?"""

from pathlib import Path

import pandas as pd

from studykit.findings import Finding, labels
from studykit.findings._contrasts import Question, extremes
from studykit.findings._lines import choose_headline, finished, require_one
from studykit.findings._sentences import best_of

FIGURE = "differences_by_setting"

_OPTIONS = {
    "method_options.beta": "beta",
    "method_options.kd_ratio": "kd_ratio",
    "method_options.temperature": "temperature",
}


def divergences(
    frame: pd.DataFrame,
    *,
    baseline: str = "kd",
    start: str = "sft",
    score: str = "exact_match",
    nll: str = "nll",
    tie: float | None = None,
    folder: str | Path | None = None,
) -> Finding:
    """Return every divergence's score by budget, best first, against plain forward KL.

    Args:
        frame: from `results.load`; runs of one method with different options are different divergences.
        baseline: what the others are compared with, fine-tuning among them: plain forward KL.
        start: the setting without a teacher, from whose score the gap to the teacher is measured.
        score, nll: the two metrics.
        tie: largest difference that does not matter, in the unit of the first; None: the metric's.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.

    Raises:
        ValueError: the rows mix students, teachers or options that are no method's.
    """
    runs = finished(frame, score)
    for column in ("student", "teacher"):
        require_one(runs, column, "divergences")
    score, why, tie = choose_headline(runs, score, nll, tie)
    question = Question(
        baseline=baseline,
        score=score,
        nll=nll,
        tie=tie,
        folder=folder,
        setting="divergence",
        options=_OPTIONS,
        twins=True,
        gap_from=start,
    )
    rows = question.contrasts(runs.assign(name=labels(runs)))
    rows.sort(key=lambda row: (row.line.budget, row.rank))
    found = question.judge(rows)
    parts = [best_of(part, found, baseline) for part in extremes(rows)]
    return question.answer(frame, rows, found, why, " ".join(parts))
