"""What findings on a factor share: settings against a baseline, by budget and by what else is varied.

    question = Question(baseline="sft", score="exact_match", nll="nll", factors={"student": "student"})
    rows = question.contrasts(runs.assign(name=runs["method"]))
    rows[0].where, rows[0].gain, rows[0].gap
    question.answer(frame, rows, question.judge(rows), "The smaller student gains more.")

A factor is a column in which runs differ that are compared, such as the teacher or the student. A setting is what is
compared with the baseline inside each combination of factors, such as a method or a loss.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studykit.findings import Compared, Finding, format_interval, judge
from studykit.findings._costs import COSTS, cost_cells, plain_costs, with_costs, without_unused
from studykit.findings._items import interval_of_gains
from studykit.findings._lines import (
    Comparison,
    Line,
    compare_lines,
    intervals_over,
    lines_of,
    one_seed_sentence,
    require_one_setting,
    without_metric,
)
from studykit.findings._twins import twins_of
from studykit.findings._verdicts import cells_of, missed_sentence
from studykit.scorers import Metric, metric
from studykit.statistics import Interval, mean_interval, paired_difference
from studykit.statistics.verdicts import Verdict


@dataclass(frozen=True)
class Contrast:
    """One setting against the baseline, at one budget and one combination of factors.

    Attributes:
        where: values of the factors.
        factors: these values in words, such as "student base-small".
        line: score and NLL of the setting, alone and against the baseline.
        teacher: score of the teacher itself, in the unit in which the metric is shown; None where it was not measured.
        student: the same score of the students that its gap is measured from, over their seeds.
        sign: 1 where a higher score is better, otherwise -1.
        twin: the setting that this one is under another name; None for what is compared.
    """

    where: dict[str, Any]
    factors: str
    line: Line
    teacher: float | None
    student: float | None
    sign: int
    twin: str | None = None

    @property
    def key(self) -> str:
        """Name of the difference to the baseline among the planned contrasts: setting, budget and factors."""
        return f"{self.line.name} at {self.budget_and_factors}"

    @property
    def budget_and_factors(self) -> str:
        """Both in words."""
        return ", ".join(filter(None, (f"{self.line.budget:,} examples", self.factors)))

    @property
    def rank(self) -> float:
        """The mean score, negative where a higher one is better: sorted by it, the best setting comes first."""
        return 0.0 if self.line.score is None else -self.sign * self.line.score.mean.mean

    @property
    def gain(self) -> Interval | None:
        """Paired difference to the baseline in the score; None without pairs, for the baseline itself, for a twin."""
        return None if self.line.score is None or self.twin else self.line.score.difference

    @property
    def gap(self) -> float | None:
        """How much better the teacher is than the students."""
        return None if self.teacher is None or self.student is None else self.sign * (self.teacher - self.student)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a finding compares, and how its table shows it.

    Args:
        baseline: the setting that the others are compared with.
        score, nll: the two metrics.
        setting: what the table calls the column of settings.
        factors: columns of factors, by what the table calls them.
        explained: columns of options that settings and factors stand for.
        options: columns of numbers that a setting has, such as `method_options.beta`, by what plain data call them.
        twins: whether settings may be one computation under several names; it is then judged once.
        gap_from: the setting whose score a gap is measured from; None for the baseline.
        tie: largest difference that does not matter, in the unit in which the score is shown; None: the metric's.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.
    """

    baseline: str
    score: str
    nll: str
    setting: str = "arm"
    factors: Mapping[str, str] = field(default_factory=dict)
    explained: Collection[str] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    twins: bool = False
    gap_from: str | None = None
    tie: float | None = None
    folder: str | Path | None = None

    def contrasts(self, named: pd.DataFrame) -> list[Contrast]:
        """Return every setting at every budget and combination of factors, against the baseline with equal factors.

        Budgets at which there is nothing to compare are left out.

        Args:
            named: finished runs, their setting as `name`. A run without the value of a factor, such as one without a
                teacher, belongs to every value.

        Raises:
            ValueError: runs of one setting that may not be averaged.
        """
        found = []
        for where in _combinations(named, list(self.factors)):
            part = with_costs(named[_matches(named, where)])
            require_one_setting(part, [*self.explained, *(["inputs"] if where else [])])
            columns = [name for name in (f"teacher_{self.score}", "trials", *COSTS, *self.options) if name in part]
            lines = lines_of(part, self.baseline, self.score, self.nll, columns, self.folder)
            start = self.gap_from or self.baseline
            level = {line.budget: line.score.mean.mean for line in lines if line.name == start and line.score}
            paired = {line.budget for line in lines if line.score and line.score.difference}
            twins = twins_of(lines, self.baseline) if self.twins else {}
            rows = [self._contrast(where, line, level.get(line.budget)) for line in lines if line.budget in paired]
            found += [replace(row, twin=twins.get((row.line.budget, row.line.name))) for row in rows]
        return found

    def judge(self, rows: Sequence[Contrast], more: Mapping[str, Interval | None] | None = None) -> dict[str, Verdict]:
        """Return the verdicts on the planned contrasts: every setting against the baseline, and further differences.

        Args:
            rows: the contrasts; they are named by their `key`.
            more: further planned differences by name; one that cannot be computed yet, None, counts all the same.
        """
        against_it = {row.key: row.gain for row in rows if row.line.name != self.baseline and not row.twin}
        return judge(against_it | dict(more or {}), self.score, self.tie)

    def answer(
        self,
        frame: pd.DataFrame,
        rows: Sequence[Contrast],
        verdicts: Mapping[str, Verdict],
        *sentences: str,
        pairs: Mapping[str, tuple[Contrast, Contrast]] | None = None,
        **more: Any,
    ) -> Finding:
        """Return a table of all settings with their paired differences, a sentence, and the same as plain data.

        Args:
            frame: what the rows were made of; says what was measured where there are none.
            rows: in the table's order.
            verdicts: on the planned contrasts.
            sentences: the answer in words; where the last one is empty, the finding says that there is none yet.
            pairs: by the name of a further planned difference, the two rows that it is between.
            more: further plain data.
        """
        has_teacher = any(row.teacher is not None for row in rows)
        table = without_unused(pd.DataFrame([self._shown(row, verdicts, has_teacher) for row in rows]))
        numbers = {"baseline": self.baseline, "score": self.score, "lines": [self._plain(row) for row in rows]} | more
        numbers["intervals"] = intervals_over(row.line for row in rows)
        numbers["gap_from"] = self.gap_from or self.baseline
        numbers["verdicts"] = {name: verdict.plain() for name, verdict in verdicts.items()}
        missing = without_metric(frame, self.score) if not rows else ""
        nothing = f"No budget has both {self.baseline} and another {self.setting} finished yet."
        digits = {"score": metric(self.score).digits, "NLL": metric(self.nll).digits, COSTS["peak_mem_gib"]: 2}
        alone = one_seed_sentence((row.line for row in rows if row.gain), self.baseline)
        said = (*sentences, alone, missed_sentence(verdicts.values()), _trials_sentence(rows))
        text = " ".join(filter(None, map(str.strip, said))) if any(sentences[-1:]) else nothing
        return Finding(table, missing or text, numbers, digits, dict(verdicts), self._compared(rows, pairs or {}))

    def _compared(
        self, rows: Sequence[Contrast], pairs: Mapping[str, tuple[Contrast, Contrast]]
    ) -> dict[str, Compared]:
        bases = {(row.line.budget, *row.where.values()): row for row in rows if row.line.name == self.baseline}
        against = {row.key: (row, bases.get((row.line.budget, *row.where.values()))) for row in rows if row.gain}
        return {
            name: compare_lines(first.line, other.line, first.where)
            for name, (first, other) in (against | dict(pairs)).items()
            if other is not None
        }

    def _plain(self, row: Contrast) -> dict[str, Any]:
        """Return one line as plain JSON data, without what was not measured."""
        line, known = row.line, {"teacher_score": row.teacher, "gap": row.gap}
        content = {"budget_examples": line.budget, "setting": line.name, "seeds": line.seeds, "where": row.where}
        content |= ({"factors": row.factors} if row.factors else {}) | ({"twin": row.twin} if row.twin else {})
        content |= line.plain() | {name: value for name, value in known.items() if value is not None}
        means = {name: value for name, value in line.means.items() if value is not None}
        options = {title: means[name] for name, title in self.options.items() if name in means}
        return content | {"options": options, "cost": plain_costs(line.means)}

    def _contrast(self, where: dict[str, Any], line: Line, student: float | None) -> Contrast:
        shown, level = metric(self.score), line.means.get(f"teacher_{self.score}")
        sign = 1 if shown.higher_is_better else -1
        factors = ", ".join(_in_words(self.factors[column], value) for column, value in where.items())
        return Contrast(where, factors, line, None if level is None else level * shown.scale, student, sign)

    def _shown(self, row: Contrast, verdicts: Mapping[str, Verdict], has_teacher: bool) -> dict[str, Any]:
        """Return one line of the table as people read it."""
        line, digits = row.line, metric(self.score).digits
        shown: dict[str, Any] = {"budget": line.budget}
        shown |= {self.factors[column]: value for column, value in row.where.items()}
        shown |= {self.setting: line.name, "seeds": line.seeds}
        if has_teacher:
            shown["teacher scores"] = "" if row.teacher is None else f"{row.teacher:.{digits}f}"
            shown["gap"] = "" if row.gap is None else f"{row.gap:+.{digits}f}"
        both = (("score", line.score, self.score), ("NLL", line.nll, self.nll))
        for name, comparison, column in both[self.score == self.nll :]:
            shown |= _beside(name, comparison, metric(column), self.baseline)
            if column == self.score:
                shown |= cells_of(verdicts.get(row.key)) | ({"verdict": f"same as {row.twin}"} if row.twin else {})
        return shown | cost_cells(line.means)


def _trials_sentence(rows: Sequence[Contrast]) -> str:
    """Return with how many trials each the settings were tuned, where not all had equally many; otherwise nothing."""
    trials = {round(number) for row in rows if (number := row.line.means.get("trials"))}
    return f"Settings were tuned with {min(trials)} to {max(trials)} trials each." if len(trials) > 1 else ""


def _combinations(named: pd.DataFrame, by: list[str]) -> list[dict[str, Any]]:
    """Return the values that occur together, without runs that lack one; a single empty combination without factors."""
    if not by:
        return [{}]
    known = named.reindex(columns=by).dropna().drop_duplicates().sort_values(by, kind="stable")
    return [dict(zip(by, map(_whole, values), strict=True)) for values in known.itertuples(index=False, name=None)]


def _whole(value: Any) -> Any:
    """Return a count as a whole number, which a column with missing values has turned into a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _matches(named: pd.DataFrame, where: dict[str, Any]) -> pd.Series:
    same = pd.Series(True, index=named.index)
    for column, value in where.items():
        same &= named[column].isna() | (named[column] == value)
    return same


def _beside(name: str, comparison: Comparison | None, shown: Metric, baseline: str) -> dict[str, Any]:
    if comparison is None:
        return {name: None, f"{name} - {baseline}": ""}
    difference = format_interval(comparison.difference, shown.digits, sign=True)
    return {name: round(comparison.mean.mean, shown.digits), f"{name} - {baseline}": difference}


def _in_words(factor: str, value: Any) -> str:
    return f"{value:,} {factor}" if isinstance(value, int | float) else f"{factor} {value}"


def by_budget(rows: Sequence[Contrast]) -> list[list[Contrast]]:
    """Return the rows that have a difference to the baseline, those of each budget together, smallest budget first."""
    known = [row for row in rows if row.gain is not None]
    budgets = sorted({row.line.budget for row in known})
    return [[row for row in known if row.line.budget == budget] for budget in budgets]


def extremes(rows: Sequence[Contrast]) -> list[list[Contrast]]:
    """Return the first and the last of `by_budget`; a single one once."""
    parts = by_budget(rows)
    return parts if len(parts) < 2 else [parts[0], parts[-1]]


def slope(rows: Sequence[Contrast], x: Sequence[float]) -> Interval | None:
    """Return by how much the gain grows with x: the slope of a straight line through the rows, over shared seeds.

    None with fewer than three rows or two values of x.

    Args:
        rows: with pairs.
        x: of each row, such as its gap.
    """
    gains = [row.line.score.by_seed if row.line.score else {} for row in rows]
    seeds = sorted(set.intersection(*map(set, gains))) if gains else []
    if len(rows) < 3 or len(set(x)) < 2 or not seeds:
        return None
    return mean_interval([float(np.polyfit(x, [gain[seed] for gain in gains], 1)[0]) for seed in seeds])


def difference_of_gains(first: Contrast, second: Contrast) -> Interval | None:
    """Return how much more the first gains over its baseline than the second over its own, paired on seeds.

    Where the items of all four runs are stored, its interval is over seeds and items.
    """
    a, b = first.line.score, second.line.score
    if a is None or b is None or not set(a.by_seed) & set(b.by_seed):
        return None
    difference = paired_difference(a.by_seed, b.by_seed)
    over_items = interval_of_gains(a.items, b.items)
    return difference if over_items is None else replace(over_items, p_value=difference.p_value)
