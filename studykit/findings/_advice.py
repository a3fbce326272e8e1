"""What to do at a data budget, from the results at hand, what that rests on, and what they do not show. Torch-free.

    advice = advise([results.load("results/lexicon")], budget=2000)
    advice.sentence, advice.evidence, advice.unknown

Between two measured budgets an arm has to hold at both. Outside what was measured there is no advice: a curve is not
extrapolated, and neither is a gap between teacher and student.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from studykit.errors import InputError
from studykit.findings import format_interval, judge, labels
from studykit.findings._lines import Line, finished, lines_of
from studykit.findings._verdicts import cells_of
from studykit.results import primary
from studykit.scorers import metric
from studykit.statistics import Interval
from studykit.statistics.verdicts import Verdict

_SECONDS = ("train_s", "teacher_s")


@dataclass(frozen=True)
class Evidence:
    """One arm at one measured budget, against the baseline.

    Attributes:
        study, student: where it was measured.
        arm: its name, as findings have it.
        budget: in examples.
        gap: score of the teacher less that of the baseline; None for arms without a measured teacher.
        seconds: of training and of asking the teacher, in those of the baseline; None where they were not measured.
        verdict: on arm - baseline, corrected for all arms of the study at this budget.
        at_least: the gain that the interval leaves at least, positive where the arm is better; minus infinity without
            an interval.
    """

    study: str
    student: str
    arm: str
    budget: int
    gap: float | None
    seconds: float | None
    verdict: Verdict
    at_least: float

    @property
    def candidate(self) -> tuple[str, str, str]:
        """What is advised: an arm, as it was run in one study with one student."""
        return self.study, self.student, self.arm


@dataclass(frozen=True)
class Advice:
    """An advice with what it rests on.

    Attributes:
        arm: the arm to train; the baseline where no other is shown to help.
        sentence: the same in words.
        evidence: of the arms that were measured around the budget, the advised one first.
        table: the evidence as people read it.
        unknown: what the results do not show, a sentence each.
    """

    arm: str
    sentence: str
    evidence: tuple[Evidence, ...]
    table: pd.DataFrame
    unknown: tuple[str, ...]


def advise(
    frames: Iterable[pd.DataFrame],
    *,
    budget: int,
    gap: float | None = None,
    max_cost: float | None = None,
    student: str | None = None,
    score: str = "exact_match",
    baseline: str = "sft",
) -> Advice:
    """Return which arm to train with a number of examples.

    Args:
        frames: one for each study, from `results.load`.
        budget: examples to train on.
        gap: score of the teacher at hand less that of a fine-tuned student, in the metric's unit; None for any.
        max_cost: seconds of training and teacher, in those of the baseline, that an arm may take; None for any.
        student: the one whose runs count; None for that of which most was measured.
        score: the metric.
        baseline: the arm that the others are compared with.

    Raises:
        InputError: of several students as much was measured and none is named, or a budget or gap is outside of it.
    """
    found = collect(frames, score=score, baseline=baseline)
    chosen, others = _choose_student(found, student)
    found = [one for one in found if one.student == chosen]
    around = _within_gap(_around(found, budget), gap, score)
    affordable = [one for one in around if max_cost is None or (one.seconds is not None and one.seconds <= max_cost)]
    best = _best(affordable)
    sure = _sure_gains(around)
    shown = sorted(around, key=lambda one: (one.candidate != best, -sure[one.candidate], one.candidate, one.budget))
    sentence = _sentence([one for one in shown if one in affordable], best, budget, baseline, max_cost, score)
    unknown = (*_unknown(around, score), *others)
    return Advice(best[2] if best else baseline, sentence, tuple(shown), _table(shown, score), unknown)


def collect(frames: Iterable[pd.DataFrame], *, score: str, baseline: str = "sft") -> list[Evidence]:
    """Return the evidence of all studies that have the metric: every arm, at every budget that has the baseline too.

    An arm is named by its method and by the options in which the study's runs of that method differ, so a study with
    several kinds of fine-tuning has no plain baseline, and gives none.

    Args:
        frames: one for each study, from `results.load`.
        score: the metric.
        baseline: the arm that the others are compared with.
    """
    evidence = []
    for frame in frames:
        runs = finished(primary(frame), score)
        for (study, student), part in runs.groupby(["study", "student"]):
            named = part.assign(name=labels(part))
            for budget, lines in _by_budget(lines_of(named, baseline, score, "nll", _SECONDS)).items():
                at_budget = named[named["budget_examples"] == budget]
                evidence += _judged(str(study), str(student), lines, at_budget, score, baseline)
    return evidence


def _by_budget(lines: Iterable[Line]) -> dict[int, list[Line]]:
    found: dict[int, list[Line]] = {}
    for line in lines:
        found.setdefault(line.budget, []).append(line)
    return found


def _judged(
    study: str, student: str, lines: Sequence[Line], runs: pd.DataFrame, score: str, baseline: str
) -> list[Evidence]:
    """Return the evidence at one budget, Holm's correction over its arms."""
    differences = {line.name: line.score.difference for line in lines if line.score and line.score.difference}
    base = next((line for line in lines if line.name == baseline), None)
    verdicts = judge(differences, score)
    return [
        Evidence(
            study,
            student,
            line.name,
            line.budget,
            _gap(line, base, runs, score),
            _ratio(_seconds(line), _seconds(base)),
            verdicts[line.name],
            _at_least(differences[line.name], score),
        )
        for line in lines
        if base is not None and line.name in verdicts
    ]


def _at_least(difference: Interval, score: str) -> float:
    end = difference.low if metric(score).higher_is_better else difference.high
    return -math.inf if end is None else abs(end) * (1 if (end > 0) is metric(score).higher_is_better else -1)


def _gap(line: Line, base: Line, runs: pd.DataFrame, score: str) -> float | None:
    """Return how much better the arm's teacher scores than the baseline, in the metric's unit."""
    column, shown = f"teacher_{score}", metric(score)
    known = runs.loc[runs["name"] == line.name, column].dropna() if column in runs else runs["seed"].iloc[:0]
    if not len(known) or base.score is None:
        return None
    return (shown.scale * float(known.mean()) - base.score.mean.mean) * (1 if shown.higher_is_better else -1)


def _seconds(line: Line) -> float | None:
    known = [line.means[name] for name in _SECONDS if line.means.get(name) is not None]
    return sum(value for value in known if value is not None) if known else None


def _ratio(seconds: float | None, of_baseline: float | None) -> float | None:
    return seconds / of_baseline if seconds is not None and of_baseline else None


def _choose_student(found: Sequence[Evidence], student: str | None) -> tuple[str, list[str]]:
    """Return the student that most of the evidence is about, or the one that is named, and a sentence on the others."""
    counts = Counter(one.student for one in found)
    if not counts or (student and student not in counts):
        who = f" of student {student}" if student else ""
        raise InputError(f"no finished runs{who} of two arms on the same seeds and budget, so there is no evidence yet")
    if student:
        return student, []
    (first, most), *rest = counts.most_common()
    others = sorted(name for name, _ in rest)
    if rest and rest[0][1] == most:
        raise InputError(f"the results hold several students, {', '.join(sorted(counts))}: name one with --student")
    return first, [f"Of {' and '.join(others)} less was measured: --student names one."] if others else []


def _around(found: Sequence[Evidence], budget: int) -> list[Evidence]:
    """Return the evidence of every arm at the two measured budgets that enclose one, or at this very one.

    Raises:
        InputError: no arm was measured on both sides.
    """
    kept = []
    for candidate in dict.fromkeys(one.candidate for one in found):
        own = sorted((one for one in found if one.candidate == candidate), key=lambda one: one.budget)
        below, above = ([one for one in own if one.budget <= budget], [one for one in own if one.budget >= budget])
        if below and above:
            kept += [below[-1]] if below[-1] is above[0] else [below[-1], above[0]]
    if not kept:
        budgets = [one.budget for one in found]
        measured = f"{min(budgets):,} to {max(budgets):,} examples"
        raise InputError(f"budget {budget:,} is outside the measured {measured}: run a study there")
    return kept


def _within_gap(around: list[Evidence], gap: float | None, score: str) -> list[Evidence]:
    """Return the evidence of the teachers that a gap applies to: those with it at the budgets around, else the next
    smaller and the next larger one.

    Raises:
        InputError: it is outside the measured ones.
    """
    if gap is None:
        return around
    spans: dict[tuple[str, str, str], list[float]] = {}
    for one in (one for one in around if one.gap is not None):
        spans.setdefault(one.candidate, []).append(one.gap or 0.0)
    measured, unit = [value for values in spans.values() for value in values], metric(score).unit
    if not measured or not min(measured) <= gap <= max(measured):
        known = f"the measured {min(measured):.1f} to {max(measured):.1f} {unit}" if measured else "all that is known"
        raise InputError(f"a gap of {gap:g} {unit} is outside {known} at this budget: run a study with such a teacher")
    nearest = max(value for value in measured if value <= gap), min(value for value in measured if value >= gap)
    holding = {who for who, values in spans.items() if min(values) <= gap <= max(values)}
    kept = holding or {who for who, values in spans.items() if set(values) & set(nearest)}
    return [one for one in around if one.gap is None or one.candidate in kept]


def _sure_gains(evidence: Sequence[Evidence]) -> dict[tuple[str, str, str], float]:
    """Return what each arm gains at least, at all budgets around."""
    return {
        candidate: min(one.at_least for one in evidence if one.candidate == candidate)
        for candidate in dict.fromkeys(one.candidate for one in evidence)
    }


def _best(affordable: Sequence[Evidence]) -> tuple[str, str, str] | None:
    """Return the arm that helps at every budget around, and of several the one that is sure of the largest gain."""
    doubtful = {one.candidate for one in affordable if one.verdict.word != "helps"}
    gains = _sure_gains([one for one in affordable if one.candidate not in doubtful])
    return max(gains, key=lambda candidate: gains[candidate], default=None)


def _sentence(
    shown: Sequence[Evidence],
    best: tuple[str, str, str] | None,
    budget: int,
    baseline: str,
    max_cost: float | None,
    score: str,
) -> str:
    limit = "" if max_cost is None else f" within {max_cost:g} times the seconds of {baseline}"
    at = f"With {budget:,} examples{limit}"
    if best is None:
        counts = Counter(str(one.verdict.word) for one in shown)
        words = ", ".join(f"{count} {word}" for word, count in counts.most_common())
        around = " at all measured budgets around it"
        return f"{at}: {baseline}. No arm helps{around} (comparisons: {words or 'none'})."
    own = [one for one in shown if one.candidate == best]
    unit, digits = metric(score).unit, metric(score).digits
    gains = "; ".join(
        f"{format_interval(one.verdict.difference, digits, sign=True)} {unit} at {one.budget:,}"
        f" (n = {one.verdict.difference.n} seeds{_cost(one)})"
        for one in own
    )
    return f"{at}: {best[2]}, as in {best[0]} with {best[1]}: {gains}."


def _cost(one: Evidence) -> str:
    return "" if one.seconds is None else f", {one.seconds:.1f} times the seconds"


def _table(shown: Sequence[Evidence], score: str) -> pd.DataFrame:
    digits = metric(score).digits
    rows: list[dict[str, Any]] = [
        {
            "arm": one.arm,
            "study": one.study,
            "budget": one.budget,
            "seeds": one.verdict.difference.n,
            "gain": format_interval(one.verdict.difference, digits, sign=True),
            **cells_of(one.verdict),
            "gap": None if one.gap is None else round(one.gap, digits),
            "seconds": None if one.seconds is None else round(one.seconds, 1),
        }
        for one in shown
    ]
    return pd.DataFrame(rows)


def _unknown(around: Sequence[Evidence], score: str) -> list[str]:
    """Return what the evidence does not show."""
    students, studies = ({getattr(one, name) for one in around} for name in ("student", "study"))
    sentences = [
        f"All of it is about {' and '.join(sorted(students))} on the data of {' and '.join(sorted(studies))}: other "
        "students, tasks and data may answer differently."
    ]
    gaps = [one.gap for one in around if one.gap is not None]
    if gaps and max(gaps) - min(gaps) < metric(score).margin:
        sentences.append(
            f"One gap between teacher and student was measured: {gaps[0]:.1f} {metric(score).unit}.".strip()
        )
    if not gaps:
        sentences.append("No teacher was scored, so nothing is known about the gap between teacher and student.")
    arms = {one.candidate for one in around}
    if open_ := {one.candidate for one in around if one.verdict.word == "cannot tell"}:
        sentences.append(f"Of {len(arms)} arms, {len(open_)} have too few seeds to tell at one of these budgets.")
    return sentences
