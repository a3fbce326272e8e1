"""Does it pay to train on the part of the data that the teacher prefers to a small reference model?"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from studykit.findings import Finding
from studykit.findings._contrasts import Contrast, Question, extremes
from studykit.findings._lines import choose_headline, finished, require_one
from studykit.findings._sentences import best_of, describe
from studykit.statistics.verdicts import Verdict

FIGURE = "differences_by_setting"

ALL = "all"
_SELECT = "method_options.select"
_DEFAULT = "difference"


def data_selection(
    frame: pd.DataFrame,
    *,
    baseline: str = "uniform",
    arm: str = "difference",
    score: str = "exact_match",
    nll: str = "nll",
    tie: float | None = None,
    folder: str | Path | None = None,
) -> Finding:
    """Return score and cost of every way to select among a budget's examples, against a random part of them.

    A way is the sampler that `miniplm` selects by; `all` is fine-tuning on the whole budget.

    Args:
        frame: from `results.load`.
        baseline: the sampler that the others are compared with.
        arm: the sampler that the question is about.
        score, nll: the two metrics.
        tie: largest difference that does not matter, in the unit of the first; None: the metric's.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.

    Raises:
        ValueError: the rows mix students, teachers or options that are no method's.
    """
    runs = finished(frame[frame["method"].isin(["sft", "miniplm"])], score)
    for column in ("student", "teacher"):
        require_one(runs, column, "data_selection")
    score, why, tie = choose_headline(runs, score, nll, tie)
    chosen = runs.get(_SELECT, pd.Series(None, index=runs.index, dtype=object)).fillna(_DEFAULT)
    question = Question(
        baseline=baseline,
        score=score,
        nll=nll,
        tie=tie,
        folder=folder,
        setting="kept by",
        explained=[_SELECT],
    )
    rows = question.contrasts(runs.assign(name=chosen.where(runs["method"] == "miniplm", ALL)))
    rows.sort(key=lambda row: (row.line.budget, row.rank))
    found = question.judge(rows)
    parts = [f"{best_of(part, found, baseline)}{_of_arm(part, arm, found)}" for part in extremes(rows)]
    return question.answer(frame, rows, found, why, " ".join(parts))


def _of_arm(rows: list[Contrast], arm: str, verdicts: Mapping[str, Verdict]) -> str:
    found = [verdicts[row.key] for row in rows if row.line.name == arm and row.key in verdicts]
    return "".join(f" {arm}: {describe(verdict)}." for verdict in found)
