"""Which of several students gains most from the same teacher?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from studykit import results
from studykit.errors import InputError
from studykit.findings import Finding
from studykit.findings._contrasts import Contrast, Question, by_budget, difference_of_gains, extremes
from studykit.findings._lines import choose_headline, finished, require_one
from studykit.findings._sentences import describe
from studykit.statistics.verdicts import Verdict

FIGURE = "gain_against_gap"


def student_size(
    frame: pd.DataFrame,
    *,
    baseline: str = "sft",
    arm: str = "kd",
    score: str = "exact_match",
    nll: str = "nll",
    tie: float | None = None,
    folder: str | Path | None = None,
) -> Finding:
    """Return every student's scores with and without the teacher, and its gain, the smallest student first.

    Each student is compared with itself: same seed, budget and steps. Sizes are numbers of parameters in the records of
    the runs; without a folder, or records that have them, the weakest student without the teacher is first.

    Args:
        frame: from `results.load`.
        baseline: the method without a teacher.
        arm: the method with one.
        score, nll: the two metrics.
        tie: largest difference that does not matter, in the unit of the first; None: the metric's.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.

    Raises:
        ValueError: the rows mix teachers or options.
    """
    runs = finished(frame[frame["method"].isin([baseline, arm])], score)
    require_one(runs, "teacher", "student_size")
    score, why, tie = choose_headline(runs, score, nll, tie)
    question = Question(baseline=baseline, score=score, nll=nll, tie=tie, folder=folder, factors={"student": "student"})
    rows = question.contrasts(runs.assign(name=runs["method"]))
    sizes = _sizes(runs, folder)
    level = sizes or {row.where["student"]: -row.rank for row in rows if row.line.name == baseline}
    rows.sort(key=lambda row: (row.line.budget, level.get(row.where["student"], 0.0)))
    more = {_name(part): difference_of_gains(part[0], part[-1]) for part in by_budget(rows) if part[1:]}
    found = question.judge(rows, more)
    ends = ("smallest", "largest") if sizes else ("weakest", "strongest")
    sentence = " ".join(_at_budget(part, found, ends) for part in extremes(rows))
    return question.answer(frame, rows, found, why, sentence, label="student")


def _sizes(runs: pd.DataFrame, folder: str | Path | None) -> dict[str, int]:
    """Return the number of parameters of each student, from the records of runs; empty where one does not have it."""
    sizes: dict[str, int] = {}
    if folder is None:
        return sizes
    for student, part in runs.groupby("student"):
        try:
            record = results.read_record(results.find_run(folder, part["run_id"].iloc[0]))
        except InputError:  # removed since the table was read
            return {}
        if record is None or record.parameters is None:
            return {}
        sizes[str(student)] = record.parameters["total"]
    return sizes


def _name(part: Sequence[Contrast]) -> str:
    return f"{part[0].where['student']} - {part[-1].where['student']} at {part[0].line.budget:,} examples"


def _at_budget(part: Sequence[Contrast], verdicts: Mapping[str, Verdict], ends: tuple[str, str]) -> str:
    gains = [f"{row.where['student']} {describe(verdicts[row.key])}" for row in part]
    text = f"At {part[0].line.budget:,} examples {part[0].line.name} gains, by student: {'; '.join(gains)}."
    if part[1:] and (more := verdicts.get(_name(part))):
        text += f" The {ends[0]} student's gain minus the {ends[1]}'s: {describe(more)}."
    return text
