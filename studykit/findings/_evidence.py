"""What advice rests on: the verdicts that findings have on arms against fine-tuning, each comparison once. Torch-free.

    answers = read_answers("results", "exact_match")
    evidence = collect(answers, score="exact_match")
    evidence[0].name, evidence[0].budget, evidence[0].verdict

Interval and word are those of the finding. Of several findings on the same runs the strictest correction counts, and of
several studies of the same arm the one with most seeds, and of equally many a tuned one.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from studykit import results
from studykit.errors import unknown
from studykit.findings import Compared
from studykit.findings._answers import Answer, find_answers
from studykit.scorers import metric
from studykit.statistics import Interval
from studykit.statistics.verdicts import Verdict

Answers = Sequence[tuple[str, Answer]]
Candidate = tuple[str, str, str, str]

_SECONDS = ("train_s", "teacher_s")


@dataclass(frozen=True)
class Rival:
    """Another arm that the same finding compares with one.

    Attributes:
        name: of the other arm, as the finding has it.
        runs: ids of its runs.
        difference: the one - the other.
        verdict: on their contrast, as the finding has it.
        is_cheaper: whether the other takes fewer seconds, or has the teacher that scores less.
    """

    name: str
    runs: frozenset[str]
    difference: Interval
    verdict: Verdict
    is_cheaper: bool


@dataclass(frozen=True)
class Evidence:
    """One arm at one measured budget, against the baseline.

    Attributes:
        study, question, contrast: of the verdict: the finding on a question, and the name that it has in it.
        student, teacher: with whom it was measured; no teacher is "".
        arm: its name, as findings have it.
        needs: the synthetic data that it trains on; "" for none.
        budget: in examples; where there is synthetic data, of the others alone.
        gap: score of the teacher less that of the baseline; None for arms without a measured teacher.
        seconds: of training and of asking the teacher, in those of the baseline; None where they were not measured.
        steps: the fewest and the most optimizer steps that a run of the arm or of the baseline took.
        is_tuned: whether trials chose the settings of all these runs.
        verdict: on arm - baseline, as the finding has it.
        at_least: the gain that the interval leaves at least, positive where the arm is better; minus infinity without
            an interval.
        rivals: other arms that the finding compares with it.
        sides: the runs that were compared.
    """

    study: str
    question: str
    contrast: str
    student: str
    teacher: str
    arm: str
    needs: str
    budget: int
    gap: float | None
    seconds: float | None
    steps: tuple[int, int]
    is_tuned: bool
    verdict: Verdict
    at_least: float
    rivals: tuple[Rival, ...]
    sides: Compared

    @property
    def candidate(self) -> Candidate:
        """What is advised: an arm with its teacher and synthetic data, for one student."""
        return self.student, self.arm, self.teacher, self.needs

    @property
    def name(self) -> str:
        """The arm with its teacher, or with the synthetic data that it needs."""
        source = f" with {self.needs}" if self.needs else f" from {self.teacher}" if self.teacher else ""
        return self.arm + source


def read_answers(root: str | Path, score: str) -> list[tuple[str, Answer]]:
    """Return the findings of all studies under a folder about a metric, with the names of their studies.

    Raises:
        InputError: no run has the metric.
    """
    folders = results.studies(root)
    frames = [results.load(folder) for folder in folders]
    require_metric(frames, score)
    return [
        (folder.name, answer)
        for folder, frame in zip(folders, frames, strict=True)
        for answer in find_answers(frame, results.cells(folder), folder, score=score)
    ]


def require_metric(frames: Iterable[pd.DataFrame], score: str) -> None:
    """Refuse a metric that none of the runs has.

    Raises:
        InputError: naming those that they have.
    """
    known = {name for frame in frames for name in results.metric_columns(frame) if frame[name].notna().any()}
    if known and score not in known:
        raise unknown("metric", score, known)


def collect(answers: Answers, *, score: str, baseline: str = "sft") -> list[Evidence]:
    """Return every arm at every budget at which a finding about the metric compares it with the baseline.

    Args:
        answers: of `find_answers`, with the names of their studies.
        score: the metric.
        baseline: the method that the others are compared with, alone and on the annotated data.
    """
    found = [
        one
        for study, answer in answers
        if answer.finding.numbers.get("score") == score
        for one in _of_answer(study, answer, score, baseline)
    ]
    strictest = _first_of(found, lambda one: (one.sides.runs, one.sides.baseline_runs), _strictness)
    return _first_of(strictest, lambda one: (one.candidate, one.budget), _rank)


def _first_of(
    found: Sequence[Evidence], same: Callable[[Evidence], Any], rank: Callable[[Evidence], Any]
) -> list[Evidence]:
    """Return the one of lowest rank among those that are the same, in the order in which they were found."""
    chosen: dict[Any, Evidence] = {}
    for one in sorted(found, key=rank):
        chosen.setdefault(same(one), one)
    kept = {id(one) for one in chosen.values()}
    return [one for one in found if id(one) in kept]


def _strictness(one: Evidence) -> float:
    return -math.inf if one.verdict.p_value is None else -one.verdict.p_value


def _rank(one: Evidence) -> tuple[int, bool, int]:
    """Return a rank by which most seeds come first, of equally many what was tuned, then the shortest training."""
    return -one.verdict.difference.n, not one.is_tuned, one.steps[1]


def _of_answer(study: str, answer: Answer, score: str, baseline: str) -> Iterator[Evidence]:
    finding = answer.finding
    for contrast, sides in finding.compared.items():
        own, base = (_runs_of(answer, ids) for ids in (sides.runs, sides.baseline_runs))
        is_planned = contrast in finding.verdicts and sides.baseline == finding.numbers["baseline"]
        if not is_planned or own.empty or set(base["method"]) != {baseline}:
            continue
        teacher = ", ".join(sorted(own["teacher"].dropna().unique())) if "teacher" in own else ""
        both = pd.concat([own, base])
        yield Evidence(
            study=study,
            question=answer.name,
            contrast=contrast,
            student=str(own["student"].iloc[0]),
            teacher=teacher,
            arm=str(own["method"].iloc[0]) if sides.setting == teacher else sides.setting,
            needs=_needs(sides),
            budget=sides.budget,
            gap=_gap(own, base, score),
            seconds=_ratio(_seconds(own), _seconds(base)),
            steps=_steps(both),
            is_tuned="trials" in both and bool(both["trials"].notna().all()),
            verdict=finding.verdicts[contrast],
            at_least=_at_least(finding.verdicts[contrast], score),
            rivals=(*_rivals(answer, sides, score),),
            sides=sides,
        )


def _runs_of(answer: Answer, ids: frozenset[str]) -> pd.DataFrame:
    return answer.runs[answer.runs["run_id"].isin(ids)]


def _needs(sides: Compared) -> str:
    count, written = sides.where.get("synthetic_examples"), sides.where.get("written")
    return "" if count is None else f"{count:,} synthetic examples written by {written}"


def _rivals(answer: Answer, sides: Compared, score: str) -> Iterator[Rival]:
    """Yield the other arm of each further planned contrast of an arm."""
    finding = answer.finding
    for contrast, further in finding.compared.items():
        is_further = contrast in finding.verdicts and further.baseline != finding.numbers["baseline"]
        if is_further and sides.runs in (further.runs, further.baseline_runs):
            verdict, is_first = finding.verdicts[contrast], further.runs == sides.runs
            difference = verdict.difference if is_first else _turned(verdict.difference)
            name, ids = (further.baseline, further.baseline_runs) if is_first else (further.setting, further.runs)
            is_cheaper = _is_cheaper(_runs_of(answer, ids), _runs_of(answer, sides.runs), score)
            yield Rival(name, ids, difference, verdict, is_cheaper)


def _turned(difference: Interval) -> Interval:
    """Return the interval of the second less the first."""
    low, high = (None if end is None else -end for end in (difference.high, difference.low))
    return replace(difference, mean=-difference.mean, low=low, high=high)


def _is_cheaper(first: pd.DataFrame, second: pd.DataFrame, score: str) -> bool:
    """Whether the first takes fewer seconds; of different teachers, whether its teacher is the weaker one."""
    scores = [_teacher_score(part, score) for part in (first, second)]
    if scores[0] is not None and scores[1] is not None and scores[0] != scores[1]:
        return (scores[0] < scores[1]) is metric(score).higher_is_better
    seconds = [_seconds(part) for part in (first, second)]
    return seconds[0] is not None and seconds[1] is not None and seconds[0] < seconds[1]


def _at_least(found: Verdict, score: str) -> float:
    better = metric(score).higher_is_better
    end = found.difference.low if better else found.difference.high
    return -math.inf if end is None else end if better else -end


def _teacher_score(runs: pd.DataFrame, score: str) -> float | None:
    column = f"teacher_{score}"
    known = runs[column].dropna() if column in runs else runs["seed"].iloc[:0]
    return metric(score).scale * float(known.mean()) if len(known) else None


def _gap(own: pd.DataFrame, base: pd.DataFrame, score: str) -> float | None:
    """Return how much better the arm's teacher scores than the baseline, in the metric's unit."""
    level, shown = _teacher_score(own, score), metric(score)
    if level is None:
        return None
    return (level - shown.scale * float(base[score].mean())) * (1 if shown.higher_is_better else -1)


def _seconds(runs: pd.DataFrame) -> float | None:
    means = [float(runs[name].mean()) for name in _SECONDS if name in runs and runs[name].notna().any()]
    return sum(means) if means else None


def _ratio(seconds: float | None, of_baseline: float | None) -> float | None:
    return seconds / of_baseline if seconds is not None and of_baseline else None


def _steps(runs: pd.DataFrame) -> tuple[int, int]:
    known = runs["steps"].dropna()
    return (int(known.min()), int(known.max())) if len(known) else (0, 0)
