"""What is left of a teacher's help when it may be called for a few examples only, or when the input is noisy?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from studykit.findings import Finding, labels
from studykit.findings._contrasts import Contrast, Question, by_budget, difference_of_gains
from studykit.findings._lines import choose_headline, finished, require_one
from studykit.findings._sentences import describe
from studykit.statistics.verdicts import Verdict

FIGURE = "differences_by_setting"

_NOISY = "r2kd"
_OPTIONS = {"calls": "calls", "method_options.prompt_dropout": "noise"}


def scarce_teacher(
    frame: pd.DataFrame,
    *,
    baseline: str = "sft",
    arm: str = "kd",
    score: str = "exact_match",
    nll: str = "nll",
    tie: float | None = None,
    folder: str | Path | None = None,
) -> Finding:
    """Return the gain over fine-tuning by the number of examples that the teacher was called for, and under noise.

    In `sft > kd, 100 calls` all examples are fine-tuned on, and then 100 of them are distilled from the teacher.

    Args:
        frame: from `results.load`.
        baseline: the method without a teacher.
        arm: the method that others are compared with at the same number of calls.
        score, nll: the two metrics.
        tie: largest difference that does not matter, in the unit of the first; None: the metric's.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.

    Raises:
        ValueError: the rows mix students, teachers or options that are no method's.
    """
    runs = finished(frame, score)
    for column in ("student", "teacher"):
        require_one(runs, column, "scarce_teacher")
    score, why, tie = choose_headline(runs, score, nll, tie)
    question = Question(
        baseline=baseline,
        score=score,
        nll=nll,
        tie=tie,
        folder=folder,
        explained=["method", "inputs"],
        options=_OPTIONS,
    )
    rows = question.contrasts(_named(runs))
    rows.sort(key=lambda row: (row.line.budget, _NOISY in row.line.name, row.line.means.get("calls") or 0.0, row.rank))
    arm = f"{baseline} > {arm}"
    pairs = {_name(*pair): pair for part in by_budget(rows) for pair in _pairs(part, arm)}
    found = question.judge(rows, {name: difference_of_gains(*pair) for name, pair in pairs.items()})
    sentence = " ".join(_at_budget(part, arm, found) for part in by_budget(rows))
    return question.answer(frame, rows, found, why, sentence, pairs=pairs)


def _named(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs with the examples that the teacher was called for as `calls`: those of the last of two stages."""
    empty = pd.Series(None, index=runs.index, dtype=float)
    staged = runs["method"].str.contains(" > ")
    calls = (
        runs.get("stage_2.examples", empty).astype(float).fillna(runs["budget_examples"].astype(float)).where(staged)
    )
    names = [
        name if pd.isna(count) else f"{method}, {count:,.0f} calls"
        for name, method, count in zip(_labels(runs), runs["method"], calls, strict=True)
    ]
    return runs.assign(name=names, calls=calls)


def _labels(runs: pd.DataFrame) -> pd.Series:
    """Return names without what a number of calls and a pruned teacher bring with them."""
    return labels(runs.drop(columns=[name for name in runs if str(name).startswith(("stage_", "teacher_"))]))


def _pairs(rows: Sequence[Contrast], arm: str) -> list[tuple[Contrast, Contrast]]:
    """Return every other method beside the arm with as many calls."""
    others = {row.line.means["calls"]: row for row in rows if row.line.name.startswith(f"{arm},")}
    calls = [(row, others.get(row.line.means["calls"])) for row in rows]
    return [(row, other) for row, other in calls if other is not None and other is not row]


def _name(row: Contrast, other: Contrast) -> str:
    return f"{row.key} - {other.line.name}"


def _at_budget(part: Sequence[Contrast], arm: str, verdicts: Mapping[str, Verdict]) -> str:
    """Give the arm's gain at each number of calls, what other methods add to it, and the best under noise."""
    texts, methods = [], {arm: [(row, verdicts[row.key]) for row in part if row.line.name.startswith(f"{arm},")]}
    for row, _ in methods[arm]:
        for pair in (pair for pair in _pairs(part, arm) if pair[1] is row and _name(*pair) in verdicts):
            name = f"{pair[0].line.name.partition(',')[0]} - {arm}"
            methods.setdefault(name, []).append((row, verdicts[_name(*pair)]))
    for name, found in methods.items():
        by_calls = [f"{row.line.means['calls']:,.0f} calls {describe(one)}" for row, one in found]
        texts += [f"{name}: {'; '.join(by_calls)}."] if by_calls else []
    if noisy := [row for row in part if row.line.name.startswith(_NOISY)]:
        best = min(noisy, key=lambda row: row.rank)
        texts.append(
            f"Best of {len(noisy)} with noise or correlation: {best.line.name}, {describe(verdicts[best.key])}."
        )
    return f"At {part[0].line.budget:,} labelled examples, against fine-tuning: {' '.join(texts)}"
