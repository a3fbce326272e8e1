"""The runs of a tuning: what each trial trains, that no held-out item is seen, and who computes which.

A trial is a run like any other, found by its content: of the settings that are tried, the arm, the budget and a seed of
the tuning, whatever the seed that is reported. Notebooks of other seeds that run at the same time share them: each
takes the next trial that no other one works on.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from studykit import results
from studykit.data import Inputs
from studykit.data.overlap import Kind
from studykit.errors import InputError, shown
from studykit.results.arms import Role, add_role
from studykit.spec import Budget, Data, Evaluation, RunSpec
from studykit.study.pin import pin
from studykit.study.progress import Show
from studykit.study.run import run_resolved
from studykit.study.space import Point
from studykit.training.resolved import ResolvedRun

_SECONDS = ("train_s", "teacher_s", "failed_s", "evaluate_s", "failed_evaluate_s")
_TOKENS = ("student_tokens", "teacher_tokens", "generated_tokens", "scored_tokens")
_DIVERGED = "FloatingPointError"
_WAIT_S = 0.5


@dataclass(frozen=True)
class Job:
    """One run of a trial.

    Attributes:
        run: pinned.
        arm: that it is a trial of.
        point: the values, or factors, that are tried.
    """

    run: ResolvedRun
    arm: str
    point: Point

    @property
    def name(self) -> str:
        """Arm and values in words."""
        return f"{self.arm} {', '.join(f'{name} {shown(value)}' for name, value in self.point.items())}"


def trial_spec(arm: Mapping[str, Any], seed: int, evaluation: Evaluation) -> RunSpec:
    """Return what a trial of an arm trains and measures.

    Args:
        arm: its plain specification, with the values that are tried.
        seed: of the tuning; it draws the examples and their order, as the arm's seed does in its run.
        evaluation: on validation items; the only one.
    """
    spec = RunSpec.parse(dict(arm))

    def drawn(data: Data) -> Data:
        own = data.budget.seed != spec.seed  # drawn from another seed, whatever that of the run
        return data if own else data.model_copy(update={"budget": data.budget.model_copy(update={"seed": seed})})

    stages = []
    for stage in spec.stages:
        mixed = stage.mix and tuple(part.model_copy(update={"data": drawn(part.data)}) for part in stage.mix)
        stages.append(stage.model_copy(update={"data": drawn(stage.data), "mix": mixed}))
    return spec.model_copy(update={"stages": tuple(stages), "evaluation": (evaluation,), "seed": seed})


def validation_of(evaluation: Evaluation, split: str, items: int | None) -> Evaluation:
    """Return an evaluation that measures the same on items of another split.

    Args:
        evaluation: of an arm.
        split: that validation items are drawn from.
        items: number of them; None for the whole split.
    """
    budget = Budget() if items is None else evaluation.data.budget.model_copy(update={"examples": items})
    data = evaluation.data.model_copy(update={"split": split, "budget": budget, "sha256": None})
    return evaluation.model_copy(update={"data": data, "items": None, "code": None, "teacher_sha256": None})


def check_apart(arm: RunSpec, trial: ResolvedRun, inputs: Inputs) -> None:
    """Refuse validation items that are held-out items, but for case, punctuation and whitespace; near ones are logged.

    Args:
        arm: with the evaluations that are reported.
        trial: one of its trials.
        inputs: remembers what has been searched.

    Raises:
        InputError: with the number of items that are both.
    """
    held_out = [item for evaluation in pin(arm, inputs).evaluations for item in evaluation.held_out]
    validated = trial.evaluations[0].held_out
    if shared := int((inputs.find_held_out(held_out, validated, "validation items").items >= Kind.NORMALISED).sum()):
        split = trial.spec.evaluation[0].data.split
        raise InputError(
            f"tune: {shared:,} of {len(held_out):,} held-out items are among the validation items of split {split!r}: "
            "name a split or file that shares nothing with the test items, such as tune_split='validation'"
        )


def run_jobs(jobs: Sequence[Job], folder: Path, tuning: str, show: Show) -> None:
    """Train and score all jobs that are not done; a run that another process works on is left for the end.

    Args:
        jobs: in the order in which they are taken.
        folder: of the study.
        tuning: id of the tuning.
        show: called with what is being done.
    """
    left = list(jobs)
    while left:
        taken = []
        for job in left:
            purpose = results.Purpose(arm=job.arm, trial_of=tuning, wait=False)
            told = _prefixed(show, f"tuning, run {jobs.index(job) + 1} of {len(jobs)}, {job.name}")
            if has_diverged(folder / "runs" / job.run.run_id):
                add_role(folder, job.run.run_id, Role(job.arm, tuning, trial=True))
                continue
            try:
                forget_unscored(folder / "runs" / job.run.run_id, job.run)
                run_resolved(job.run, folder.name, folder.parent, purpose=purpose, keep="none", show=told)
            except results.Held:
                taken.append(job)
            except FloatingPointError:
                told("diverged")
        if len(taken) == len(left):
            show(f"tuning: waiting for {len(left)} runs that other processes work on")
            time.sleep(_WAIT_S)
        left = taken


def has_diverged(folder: Path) -> bool:
    """Whether a run ended because its loss or gradient was no finite number; it is not trained again."""
    record = results.read_record(folder)
    return record is not None and record.status == "failed" and (record.error or "").startswith(_DIVERGED)


def forget_unscored(folder: Path, run: ResolvedRun) -> None:
    """Let a run be trained again that was killed before it was scored: no weights of trials are kept.

    Raises:
        Held: another process works on it.
    """
    if not results.is_done(folder) or any((folder / kept).is_dir() for kept in ("model", "adapter")):
        return
    with results.holding(folder, wait=False):
        if results.find_evaluation(folder, run.evaluations[0].spec.eval_id, status="done") is None:
            (folder / "record.json").unlink()


def measured(folder: Path, eval_id: str) -> tuple[dict[str, float] | None, dict[str, float]]:
    """Return the scores of a trial's run, None where it diverged, and what it cost.

    Args:
        folder: of the run.
        eval_id: its evaluation.
    """
    record = results.read_record(folder)
    assert record is not None
    if record.status == "failed":
        started, finished = (datetime.fromisoformat(text) for text in (record.started, record.finished))
        return None, {"seconds": (finished - started).total_seconds()}
    found = results.find_evaluation(folder, eval_id, status="done")
    assert found is not None
    assert found.record is not None
    cost = record.cost | found.record.cost
    seconds = sum(float(cost.get(name, 0)) for name in _SECONDS)
    scores = {name: float(value) for name, value in found.record.metrics.items()}
    return scores, {"seconds": round(seconds, 3)} | {name: float(cost[name]) for name in _TOKENS if name in cost}


def _prefixed(show: Show, text: str) -> Show:
    return lambda line: show(f"{text}: {line}")
