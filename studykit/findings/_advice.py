"""What to do at a data budget, from the results at hand, what that rests on, and what they do not show. Torch-free.

    advice = advise(read_answers("results", "exact_match"), budget=2000)
    advice.sentence, advice.evidence, advice.unknown

It rests on the verdicts of the findings. Between two measured budgets an arm has to hold at both. Outside what was
measured there is no advice: a curve is not extrapolated, and neither is a gap between teacher and student.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from studykit.errors import InputError
from studykit.findings import format_interval
from studykit.findings._evidence import Answers, Candidate, Evidence, Rival, collect, require_metric
from studykit.findings._verdicts import cells_of
from studykit.scorers import metric


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
    answers: Answers,
    *,
    budget: int,
    gap: float | None = None,
    max_cost: float | None = None,
    student: str | None = None,
    score: str = "exact_match",
    baseline: str = "sft",
) -> Advice:
    """Return which arm to train with a number of examples.

    Of the arms that help, one with the most seeds is advised; of several, one with the shortest training, and then the
    one that is sure of the largest gain. Of studies of the same arm with equally many seeds a tuned one counts.

    Args:
        answers: the findings, from `read_answers`.
        budget: examples to train on; synthetic ones that an arm adds do not count.
        gap: score of the teacher at hand less that of a fine-tuned student, in the metric's unit; None for any.
        max_cost: seconds of training and teacher, in those of the baseline, that an arm may take; None for any.
        student: the one whose runs count; None for that of which most was measured.
        score: the metric.
        baseline: the arm that the others are compared with.

    Raises:
        InputError: no run has the metric, of several students as much was measured and none is named, or a budget or
            gap is outside of it.
    """
    require_metric([answer.runs for _, answer in answers], score)
    found = collect(answers, score=score, baseline=baseline)
    chosen, others = _choose_student(found, student)
    found = [one for one in found if one.student == chosen]
    around = _within_gap(_around(found, budget), gap, score)
    affordable = [one for one in around if max_cost is None or (one.seconds is not None and one.seconds <= max_cost)]
    helping = _helping(affordable)
    best = helping[0] if helping else None
    shown = sorted(around, key=lambda one: (one.candidate != best, _rank(around, one.candidate), one.budget))
    limit = "" if max_cost is None else f" within {max_cost:g} times the seconds of {baseline}"
    at = f"With {budget:,} examples{limit}"
    sentence = f"{at}: {_advised(affordable, helping, score) if best else _nothing(affordable, baseline, score)}"
    unknown = (*_unknown(around, score), *_unknown_of([one for one in around if one.candidate == best]), *others)
    return Advice(shown[0].arm if best else baseline, sentence, tuple(shown), _table(shown, score), unknown)


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
        budgets = sorted({one.budget for one in found})
        if budgets[0] < budget < budgets[-1]:
            measured = ", ".join(f"{one:,}" for one in budgets)
            raise InputError(
                f"no arm was measured on both sides of budget {budget:,}, only at {measured}: run it there"
            )
        measured = f"{budgets[0]:,} to {budgets[-1]:,} examples"
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
    spans: dict[Candidate, list[float]] = {}
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


def _helping(affordable: Sequence[Evidence]) -> list[Candidate]:
    """Return the arms that help at every budget around, the one to advise first."""
    doubtful = {one.candidate for one in affordable if one.verdict.word != "helps"}
    helping = {one.candidate for one in affordable} - doubtful
    return sorted(helping, key=lambda candidate: _rank(affordable, candidate))


def _rank(evidence: Sequence[Evidence], candidate: Candidate) -> tuple[Any, ...]:
    """Return a rank by which arms that help come first, then most seeds, then short training, then large sure gains."""
    own = [one for one in evidence if one.candidate == candidate]
    helps = all(one.verdict.word == "helps" for one in own)
    return not helps, *_weight(own), -min(one.at_least for one in own), candidate


def _weight(own: Sequence[Evidence]) -> tuple[int, int]:
    """Return what arms are ranked by before their gains: seeds, and the steps of their training."""
    return -min(one.verdict.difference.n for one in own), max(one.steps[1] for one in own)


def _nothing(affordable: Sequence[Evidence], baseline: str, score: str) -> str:
    counts = Counter(str(one.verdict.word) for one in affordable)
    words = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    text = f"{baseline}. No arm helps at all measured budgets around it (comparisons: {words or 'none'})."
    return text + _nearest(affordable, score)


def _nearest(affordable: Sequence[Evidence], score: str) -> str:
    """Name the arm that helps at one of the budgets and hurts at none, with a space before it; empty without any."""
    of_arm = {one.candidate: [other for other in affordable if other.candidate == one.candidate] for one in affordable}
    words = {candidate: {one.verdict.word for one in own} for candidate, own in of_arm.items()}
    open_ = [candidate for candidate, found in words.items() if "helps" in found and "hurts" not in found]
    if not open_:
        return ""
    own = sorted(of_arm[min(open_, key=lambda candidate: _rank(affordable, candidate))], key=lambda one: one.budget)
    return f" Nearest comes {own[0].name}: " + "; ".join(f"{_gain(one, score)}: {one.verdict}" for one in own) + "."


def _advised(affordable: Sequence[Evidence], helping: Sequence[Candidate], score: str) -> str:
    """Return the advised arm with its gains, of how many arms it is the best, and those that it is not told from."""
    own = sorted((one for one in affordable if one.candidate == helping[0]), key=lambda one: one.budget)
    studies = " and ".join(dict.fromkeys(one.study for one in own))
    gains = "; ".join(_gain(one, score) for one in own)
    text = f"{own[0].name}, as in {studies} with {own[0].student}: {gains}."
    rivals = " ".join(dict.fromkeys(filter(None, (_told_apart(one) for one in own))))
    beside = (_sure_of_more(affordable, helping, score), rivals, *(_not_compared(one, affordable) for one in own))
    return " ".join(filter(None, (text, _of_how_many(affordable, helping), *beside)))


def _gain(one: Evidence, score: str) -> str:
    gain = f"{format_interval(one.verdict.difference, metric(score).digits, sign=True)} {metric(score).unit}".strip()
    cost = "" if one.seconds is None else f", {one.seconds:.1f} times the seconds"
    return f"{gain} at {one.budget:,} (n = {one.verdict.difference.n} seeds, {_steps(one)} optimizer steps{cost})"


def _steps(one: Evidence) -> str:
    fewest, most = one.steps
    return f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"


def _of_how_many(affordable: Sequence[Evidence], helping: Sequence[Candidate]) -> str:
    """Say how many arms were measured and help, and by what the advised one comes before the others that do."""
    total = len({one.candidate for one in affordable})
    if len(helping) == 1:
        return f"Of {total} arms measured there it is the only one that helps." if total > 1 else ""
    weights = [_weight([one for one in affordable if one.candidate == candidate]) for candidate in helping]
    same = weights.count(weights[0])
    reason = "it has the most seeds"
    if same > 1:
        reason = (
            f"of {same} with as many seeds and steps it is sure of the largest gain, likely too large as the largest"
        )
    elif [seeds for seeds, _ in weights].count(weights[0][0]) > 1:
        reason = "none with as many seeds was trained for as few steps"
    return f"Of {total} arms measured there {len(helping)} help; {reason}."


def _told_apart(one: Evidence) -> str:
    """Name the arms that the finding compares with an arm and does not tell apart, the cheaper ones first."""
    open_ = [rival for rival in one.rivals if rival.verdict.word in ("tie", "cannot tell")]
    found = [
        f"{'the cheaper ' if rival.is_cheaper else ''}{rival.name} ({_difference(rival)}: {rival.verdict})"
        for rival in sorted(open_, key=lambda rival: not rival.is_cheaper)
    ]
    return f"At {one.budget:,} it is not told apart from {', '.join(found)}." if found else ""


def _not_compared(one: Evidence, affordable: Sequence[Evidence]) -> str:
    """Count the cheaper arms of the same finding that help too and that no contrast compares with an arm."""
    planned, place = {rival.runs for rival in one.rivals}, (one.study, one.question, one.budget)
    beside = [
        other
        for other in affordable
        if (other.study, other.question, other.budget) == place
        and (other.seconds or math.inf) < (one.seconds or 0.0)
        and other.verdict.word == "helps"
        and other.sides.runs not in planned
    ]
    count = len(beside)
    arms = f"{count} cheaper {'arms that help' if count > 1 else 'arm that helps'} too"
    return f"At {one.budget:,} no planned contrast tells it apart from {arms}." if beside else ""


def _sure_of_more(affordable: Sequence[Evidence], helping: Sequence[Candidate], score: str) -> str:
    """Name the arm with fewer seeds that is sure of the largest gain, where that is more than the advised one has."""
    gains = {candidate: min(one.at_least for one in affordable if one.candidate == candidate) for candidate in helping}
    first, *others = helping
    most = max((abs(one.verdict.difference.mean) for one in affordable if one.candidate == first), default=0.0)
    more = max(others, key=lambda candidate: gains[candidate], default=first)
    if gains[more] <= most or more == first:
        return ""
    name = next(one.name for one in affordable if one.candidate == more)
    shown = metric(score)
    least = f"{gains[more]:.{shown.digits}f} {shown.unit}".strip()
    return f"With fewer seeds or longer training, {name} is sure of more: at least {least}."


def _difference(rival: Rival) -> str:
    return f"{format_interval(rival.difference, rival.verdict.digits, sign=True)} {rival.verdict.unit}".rstrip()


def _table(shown: Sequence[Evidence], score: str) -> pd.DataFrame:
    digits = metric(score).digits
    rows: list[dict[str, Any]] = [
        {
            "arm": one.name,
            "study": one.study,
            "finding": one.question,
            "budget": one.budget,
            "seeds": one.verdict.difference.n,
            "steps": _steps(one),
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


def _unknown_of(advised: Sequence[Evidence]) -> list[str]:
    """Return what the evidence on the advised arm leaves out."""
    writing = "The seconds are without those in which a teacher writes the synthetic examples."
    return [writing] if any(one.needs for one in advised) else []
