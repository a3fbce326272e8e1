"""Is training on the student's answers worth what it costs?"""

from pathlib import Path
from typing import Any

import pandas as pd

from studykit.findings import Finding, labels, pareto_front
from studykit.findings._contrasts import Contrast, Question, extremes
from studykit.findings._lines import choose_headline, finished, require_one
from studykit.findings._sentences import best_of

FIGURE = "score_against_cost"

_OPTIONS = {"method_options.lmbda": "lmbda", "method_options.top_k": "K"}


def on_policy(
    frame: pd.DataFrame,
    *,
    baseline: str = "kd",
    start: str = "sft",
    score: str = "exact_match",
    nll: str = "nll",
    tie: float | None = None,
    folder: str | Path | None = None,
) -> Finding:
    """Return score and cost of every recipe by budget, best first, and those that no cheaper one equals.

    Args:
        frame: from `results.load`; runs of one method with different options are different recipes.
        baseline: what the others are compared with, fine-tuning among them: the recipe on the data's answers.
        start: the setting without a teacher, from whose score the gap to the teacher is measured.
        score, nll: the two metrics.
        tie: largest difference that does not matter, in the unit of the first; None: the metric's.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.

    Raises:
        ValueError: the rows mix students, teachers or options that are no method's.
    """
    runs = finished(frame, score)
    for column in ("student", "teacher"):
        require_one(runs, column, "on_policy")
    score, why, tie = choose_headline(runs, score, nll, tie)
    question = Question(
        baseline=baseline,
        score=score,
        nll=nll,
        tie=tie,
        folder=folder,
        setting="recipe",
        options=_OPTIONS,
        gap_from=start,
    )
    rows = question.contrasts(runs.assign(name=labels(runs)))
    rows.sort(key=lambda row: (row.line.budget, row.rank))
    found = question.judge(rows)
    fronts = {part[0].line.budget: _front(rows, part[0].line.budget) for part in extremes(rows)}
    parts = [f"{best_of(part, found, baseline)} {_in_words(fronts[part[0].line.budget])}" for part in extremes(rows)]
    return question.answer(frame, rows, found, why, " ".join(parts), fronts=list(fronts.values()))


def _front(rows: list[Contrast], budget: int, cost: str = "train_s") -> dict[str, Any]:
    """Return the recipes of a budget with which no other is both cheaper and at least as good, cheapest first."""
    measured = [(row, row.line.means.get(cost)) for row in rows if row.line.budget == budget]
    known = [(row, value) for row, value in measured if value is not None]
    front = pareto_front([(value, row.rank) for row, value in known])
    return {"budget_examples": budget, "cost": cost, "settings": [known[number][0].line.name for number in front]}


def _in_words(front: dict[str, Any]) -> str:
    return f"Nothing scores as much in fewer seconds than {', '.join(front['settings'])}."
