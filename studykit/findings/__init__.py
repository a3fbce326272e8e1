"""What a study has found, computed from its table of runs: one question per file. Torch-free.

A finding is a function `name(frame, *, option=default) -> Finding` in a file of the same name, and gives the same
answer in the notebook, on the terminal, in the dashboard and in the README:

    finding = FINDINGS.member("data_size")(results.load("results/lexicon"))
    finding.table, finding.sentence
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from studykit import results
from studykit.discovery import Room, flags
from studykit.findings._costs import COSTS, pareto_front, with_costs
from studykit.findings._format import TEXT_COLUMNS, format_cell, format_interval, markdown_table
from studykit.findings._items import items_apart
from studykit.findings._verdicts import judge
from studykit.statistics.verdicts import Verdict

__all__ = [
    "COSTS",
    "FINDINGS",
    "TEXT_COLUMNS",
    "Compared",
    "Finding",
    "comparable",
    "figure_of",
    "format_cell",
    "format_interval",
    "items_apart",
    "judge",
    "labels",
    "markdown_table",
    "pareto_front",
    "short_names",
    "with_costs",
]

FINDINGS = Room("studykit.findings", kind="finding")


class Drawn:
    """The flags of a finding; its file sets them in capitals. `FIGURE` there names the figure that shows it.

    Attributes:
        figure_per_budget: whether the figure shows the runs of one budget.
    """

    figure_per_budget: bool = False


def figure_of(name: str) -> tuple[str | None, bool]:
    """Return the figure that shows a finding, None where its file names none, and whether it is one for each budget."""
    module = FINDINGS.module(name)
    return getattr(module, "FIGURE", None), flags(Drawn, module)["figure_per_budget"]


@dataclass(frozen=True)
class Compared:
    """The two sides of a planned contrast.

    Attributes:
        setting, baseline: their names in the finding.
        budget: in examples, as the finding counts them.
        runs, baseline_runs: the ids of their runs.
        where: values of the factors that both share, such as the student.
    """

    setting: str
    baseline: str
    budget: int
    runs: frozenset[str]
    baseline_runs: frozenset[str]
    where: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """An answer with its evidence.

    Attributes:
        table: one row per setting, columns as shown to people.
        sentence: the answer in words, with numbers, interval and seeds; where there is no answer yet, it says why.
        numbers: the same as plain JSON data; `score` is the metric that the answer is about.
        digits: decimals of the table's columns of numbers.
        verdicts: on the planned contrasts by name, the most important one first; `numbers` holds the same as JSON.
        compared: by the same names, which runs a contrast is about; without those that are no contrast of two settings
            in the finding's score.
    """

    table: pd.DataFrame
    sentence: str
    numbers: dict[str, Any] = field(default_factory=dict)
    digits: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    compared: dict[str, Compared] = field(default_factory=dict)

    @property
    def intervals(self) -> str:
        """What the intervals of its differences are, in words; of score and NLL apart where these differ.

        >>> Finding(pd.DataFrame(), "", {"intervals": {"score": "seeds and items", "nll": "seeds"}}).intervals
        '95% t intervals (score: over seeds and items; NLL: over seeds)'
        """
        over = self.numbers.get("intervals") or {"score": "seeds"}
        if len(set(over.values())) == 1:
            return f"95% t intervals over {next(iter(over.values()))}"
        return f"95% t intervals (score: over {over['score']}; NLL: over {over['nll']})"


_EVALUATION = ("eval_id",)


def comparable(frame: pd.DataFrame, runs: pd.DataFrame, vary: Collection[str] = ()) -> pd.DataFrame:
    """Return the rows of a study that differ from some runs in budget and seed only: one study may hold many variants.

    Steps may vary with the budget, in total and by stage; at the budgets of these runs they must be equal. What a
    tuning chose may vary with budget, seed and arm, if it is the same tuning.

    Args:
        frame: from `results.load`.
        runs: the rows to compare with, such as the arms of one notebook.
        vary: further columns that may differ, such as `student`, and with them the hash of models and data.
    """
    frame = results.in_tuning(frame, runs)
    free = ["student", "teacher", *vary, *(["inputs"] if vary else [])]
    columns = [[name for name in results.identity_columns(part) if name not in free] for part in (frame, runs)]
    options = [
        results.configurations(part, _without_schedule(part, names))
        for part, names in zip((frame, runs), columns, strict=True)
    ]
    same = options[0].isin(options[1])
    for name in (name for name in ("student", "teacher") if name not in vary):
        same &= frame[name].isna() | frame[name].isin(runs[name].dropna())
    here = frame["budget_examples"].isin(runs["budget_examples"])
    schedules = [
        results.configurations(part, ["budget_examples", *results.schedule_columns(part)]) for part in (frame, runs)
    ]
    return frame[same & (~here | schedules[0].isin(schedules[1]))]


def labels(runs: pd.DataFrame) -> pd.Series:
    """Return a name for every run: its method, and in brackets the options in which runs of this method differ.

    Runs with one name may be averaged. Steps, and budgets of stages, are named where they
    differ within one budget.

    >>> labels(pd.DataFrame({"method": ["kd", "kd", "sft"], "batch_size": [64, 8, 64]})).tolist()
    ['kd (batch_size=64)', 'kd (batch_size=8)', 'sft']
    """
    names = pd.Series(index=range(len(runs)), dtype=object)
    for method, part in runs.reset_index(drop=True).groupby("method"):
        options = _without_schedule(part, results.identity_columns(part))
        columns = differing_columns(part, [name for name in options if name != "method"])
        if "budget_examples" in part:
            schedule = results.schedule_columns(part)
            within = [differing_columns(same, schedule) for _, same in part.groupby("budget_examples")]
            columns += [name for name in schedule if any(name in differing for differing in within)]
        shown = short_names(columns)
        for row, values in zip(part.index, results.settings(part, columns, defaults=True), strict=True):
            text = ", ".join(sorted(f"{shown[name]}={_text(value)}" for name, value in values.items()))
            names[row] = f"{method} ({text})" if text else str(method)
    return names.set_axis(runs.index)


def differing_columns(runs: pd.DataFrame, columns: list[str]) -> list[str]:
    """Return the columns in which some runs do not all have the same value.

    A hash is among them only where the others do not tell the same runs apart.
    """
    differing = [name for name in columns if results.configurations(runs, [name]).nunique() > 1]
    for name in results.HASHES:
        others = [other for other in differing if other != name]
        if results.configurations(runs, others).nunique() == results.configurations(runs, differing).nunique():
            differing = others
    return differing


def short_names(columns: Collection[str]) -> dict[str, str]:
    """Return a name to show for every column of options: without `method_options.` where that stays clear.

    >>> short_names(["method_options.beta", "batch_size"])
    {'method_options.beta': 'beta', 'batch_size': 'batch_size'}
    """
    short = {name: name.replace("method_options.", "") for name in columns}
    return {name: name if Counter(short.values())[text] > 1 else text for name, text in short.items()}


def _without_schedule(runs: pd.DataFrame, columns: list[str]) -> list[str]:
    """Return the columns that must agree between budgets too: without steps and the budgets of stages."""
    schedule = results.schedule_columns(runs)
    return [name for name in columns if name not in schedule]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
