"""Which findings the results at hand have: those whose notebooks have been executed, or whose runs are there."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from studykit import results
from studykit.errors import InputError
from studykit.findings import FINDINGS, Finding
from studykit.results import CellState

_OPTIONS = {"method": "arm", "primary_metric": "score", "tie": "tie"}
"""Parameters of notebooks that are options of findings, under the names that they have there."""


@dataclass(frozen=True)
class Answer:
    """A finding over the runs that are about its question.

    Attributes:
        name: of the finding.
        finding: its answer; where the runs cannot be compared, its sentence says why.
        runs: rows of the table of runs, one for each run.
        cells: the notebooks that were executed for it.
    """

    name: str
    finding: Finding
    runs: pd.DataFrame
    cells: tuple[CellState, ...] = ()


def seconds_of(answer: Answer, contrast: str) -> tuple[float, float] | None:
    """Return the mean seconds of training of a contrast's setting and of its baseline; None where one is not known."""
    if contrast not in answer.finding.compared or "train_s" not in answer.runs:
        return None
    sides = answer.finding.compared[contrast]
    both = (sides.runs, sides.baseline_runs)
    setting, baseline = (float(answer.runs.loc[answer.runs["run_id"].isin(ids), "train_s"].mean()) for ids in both)
    return (setting, baseline) if setting > 0 and baseline > 0 else None


def find_answers(
    frame: pd.DataFrame,
    cells: Sequence[CellState],
    folder: Path,
    *,
    by_ablation: bool = True,
    score: str | None = None,
) -> list[Answer]:
    """Return the findings that apply, by name: `01_data_size` has `data_size`.

    Notebooks of one question with another arm, metric, margin or tuning are other findings.

    Args:
        frame: from `results.load`.
        cells: the cells of a study.
        folder: of the study.
        by_ablation: whether runs also count that no notebook has and that were trained for a question, where its
            notebooks are one finding.
        score: the metric that all findings are about; None for the one that their notebooks name.
    """
    groups: dict[tuple, list[CellState]] = {}
    for cell in cells:
        if cell.spec and (name := cell.spec.notebook.partition("_")[2]) in FINDINGS.names():
            chosen = tuple(str(cell.spec.parameters.get(parameter) or "") for parameter in (*_OPTIONS, "tune"))
            groups.setdefault((name, *chosen), []).append(cell)
    counts = Counter(key[0] for key in groups)
    alone = ~frame["run_id"].isin({run for cell in cells for run in cell.runs}) & by_ablation
    for name in set(frame.loc[alone, "ablation"].dropna()) & set(FINDINGS.names()) - set(counts):
        groups[(name,)] = []
    found = []
    for (name, *_), part in groups.items():
        counted = _are_runs_of(frame, part)
        counted |= alone & (frame["ablation"] == name) & (counts[name] < 2)
        found.append(_answer(name, frame[counted], part, folder, score))
    return sorted(found, key=lambda answer: answer.name)


def _are_runs_of(frame: pd.DataFrame, cells: Iterable[CellState]) -> pd.Series:
    runs = {run for cell in cells for run in cell.runs}
    shown = {evaluation for cell in cells for evaluation in cell.evaluations}
    return frame["run_id"].isin(runs) & (frame["eval_id"].isin(shown) if shown else True)


def _answer(name: str, runs: pd.DataFrame, cells: Sequence[CellState], folder: Path, score: str | None) -> Answer:
    runs, known = results.primary(runs), FINDINGS.options(name)
    parameters = cells[0].spec.parameters if cells and cells[0].spec else {}
    given = {option: parameters.get(parameter) for parameter, option in _OPTIONS.items()} | {"folder": folder}
    if score is not None and "score" in known and score != (given["score"] or known["score"].default):
        given |= {"score": score, "tie": None}  # a margin is in the unit of its metric
    options = {option: value for option, value in given.items() if value is not None and option in known}
    try:
        finding = FINDINGS.member(name)(runs, **options)
    except (InputError, ValueError) as error:
        finding = Finding(runs.iloc[:0, :0], f"no finding over all of these runs: {error}")
    return Answer(name, finding, runs, tuple(cells))
