"""Score a trained run: by the evaluations of its specification, or later by others, without training it again.

    row = score(run_id, {"data": {"source": "lexicon", "split": "test"}, "items": 2000})
    row = score(run_id, scorers=["exact_match", "nll"])            # the run's first evaluation, with other scorers

The model is read from the run's folder. It is not needed where another evaluation of the run has answered the same
items with the same limits: then its answers are scored again. The teacher's answers are stored likewise, in the cache.
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studykit import results
from studykit.chat import ENCODING_VERSION
from studykit.data import Inputs
from studykit.errors import InputError
from studykit.evaluation import answer_items, item_of_line, line_of_item
from studykit.files import cache_folder, read_lines, replacing
from studykit.generation.cost import Cost
from studykit.generation.peers import dealing
from studykit.models.card import model_card
from studykit.models.loading import device, load_adapters, load_student, load_teacher
from studykit.models.names import ModelRef
from studykit.models.sharding import is_sharding, shard
from studykit.results.follower import Follower
from studykit.results.status import Activity, StatusFile, Watch, unwatched
from studykit.results.table import run_row
from studykit.scorers import Item, Named, metrics_of, needs_of, score_items, without_teacher
from studykit.spec import Evaluation
from studykit.study.checks import check_single_process
from studykit.study.pin import pin
from studykit.study.progress import showing
from studykit.training import ranks
from studykit.training.resolved import ResolvedEvaluation, ResolvedRun
from studykit.training.spending import Spending
from studykit.training.stages import leave_float32_flash

_LOG = logging.getLogger(__name__)
_FIRST = ("revision", "top_k", "samples", "pruned", "engine", "attn_implementation", "sha256")
"""Fields of a teacher that are in names of files also where they are None; later ones are left out then."""


def score(
    run_id: str,
    evaluation: Evaluation | Mapping[str, Any] | None = None,
    *,
    scorers: Sequence[Named] | None = None,
    root: str | Path = "results",
) -> dict[str, Any]:
    """Score a finished run by one more evaluation; what has been measured already is read.

    Args:
        run_id: of any study under `root`.
        evaluation: what to measure; None for the run's first evaluation.
        scorers: in place of the evaluation's.
        root: the results folder.

    Returns:
        The run's row in the table, with the scores of this evaluation.

    Raises:
        InputError: no such run, one that is not finished or has no weights, or anything wrong with the evaluation.
    """
    check_single_process()
    folder = results.find_run(root, run_id)
    record = results.read_record(folder)
    if record is None or record.status != "done":
        raise InputError(f"run {run_id} is not finished: run its specification first ({folder / 'spec.json'})")
    wanted = _wanted(folder, evaluation, scorers)
    run = pin(record.spec.without_code.model_copy(update={"evaluation": (wanted,)}), Inputs(root))
    eval_id = run.evaluations[0].spec.eval_id
    with showing(None) as show, results.holding(folder, show) as lease:
        _check_weights(folder, run)
        score_all(run, folder, watch=StatusFile(folder, lambda status: show(status.line()), lease.check))
    return run_row(folder, folder.parents[1].name, eval_id)


def score_all(run: ResolvedRun, folder: Path, student: nn.Module | None = None, watch: Watch = unwatched) -> None:
    """Measure those evaluations of a trained run that are not done.

    Args:
        run: the pinned run, with its evaluations.
        folder: of the run, which this process holds.
        student: the trained model; None where its weights are to be read from the folder.
        watch: called with the progress.
    """
    done = ranks.agree(lambda: {one.eval_id for one in results.read_evaluations(folder) if one.status == "done"})
    todo = [evaluation for evaluation in run.evaluations if evaluation.spec.eval_id not in done]
    for evaluation in todo:
        writing = results.EvaluationWriter(folder, evaluation.spec) if ranks.is_main() else Follower(folder)
        with writing as writer:
            answered_in, items = ranks.agree(partial(_stored_items, folder, evaluation))
            started, spending = time.monotonic(), Spending(writer.folder)
            failed_s = spending.lost({}).get("failed_s", 0.0)
            if items is None:
                student = load_trained(run, folder) if student is None else student
                scoring = partial(watch, Activity("scoring", "items"))
                if ranks.is_main():
                    scoring = spending.follow(scoring, Cost(failed_s=failed_s), "evaluate_s")
                parts = (evaluation.spec, evaluation.held_out, scoring, evaluation.teacher)
                with dealing():
                    items = answer_items(student, run.student.tokenizer, *parts)
            scores = score_items(items, evaluation.spec.scorers)
            _log_cut(items, evaluation.spec)
            writer.write_items(line_of_item(item, score) for item, score in zip(items, scores, strict=True))
            metrics = metrics_of(items, scores, evaluation.spec.scorers)
            evaluate_s = round(time.monotonic() - started, 3)
            of_teacher = _teacher_metrics(run, evaluation, watch)
            spending.remove()
            failed = {"failed_evaluate_s": round(failed_s, 3)} if failed_s else {}
            writer.finish(
                metrics,
                cost={"evaluate_s": evaluate_s} | failed | device_hours(time.monotonic() - started + failed_s),
                gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                teacher_metrics=of_teacher,
                held_out=evaluation.covered,
                items_trained_on=evaluation.items_trained_on,
                items_validated_on=evaluation.items_validated_on,
                answers_from=answered_in,
                processes=ranks.count(),
            )
    if todo and ranks.is_main():
        _write_card(folder)


def device_hours(seconds: float) -> dict[str, float]:
    """Return the hours of the GPUs that a run computes on, one for each process, or of the processor without any."""
    if torch.cuda.is_available():
        return {"gpu_hours": round(ranks.count() * seconds / 3600, 6)}
    return {"processor_hours": round(seconds / 3600, 6)}


def _log_cut(items: Sequence[Item], evaluation: Evaluation) -> None:
    if cut := sum(item.cut for item in items):
        limit = f"evaluation.max_new_tokens, {evaluation.max_new_tokens}"
        _LOG.warning("%s of %s answers were cut at %s: their scores may be too low", cut, len(items), limit)


def load_trained(run: ResolvedRun, folder: Path) -> nn.Module:
    """Return the trained student as it was when its training ended: with adapters, unmerged."""
    if run.spec.student.lora is not None:
        student = load_student(run.spec.student, run.student, run.spec.seed)
        load_adapters(student, folder / "adapter")
    else:
        saved = run.spec.student.model_copy(update={"random_config": None})
        student = load_student(saved, ModelRef(run.run_id, str(folder / "model")))
    if is_sharding():
        shard(student)
    else:
        student.to(device())
    leave_float32_flash(student)
    return student


def check_weights(study_folder: Path, run: ResolvedRun) -> None:
    """Refuse to score a run that is trained and whose weights were not kept; before any other run trains.

    Raises:
        InputError: naming the run, and how to train it anew.
    """
    folder = study_folder / "runs" / run.run_id
    if results.is_done(folder):
        _check_weights(folder, run)


def _check_weights(folder: Path, run: ResolvedRun) -> None:
    if (folder / ("model" if run.spec.student.lora is None else "adapter")).is_dir():
        return
    for evaluation in run.evaluations:
        done = results.find_evaluation(folder, evaluation.spec.eval_id, status="done")
        if done is None and _stored_items(folder, evaluation)[1] is None:
            raise InputError(
                f"run {folder.name} is trained, and its weights were not kept, so that it cannot be scored again: "
                f"remove {folder} to train it anew, with keep='bf16' or keep='full'"
            )


def _wanted(folder: Path, given: Evaluation | Mapping[str, Any] | None, scorers: Sequence[Named] | None) -> Evaluation:
    """Return the evaluation to make."""
    if given is None:
        first = results.find_evaluation(folder)
        if first is None or first.evaluation is None:
            raise InputError(f"run {folder.name} has no evaluation: give one, with the data and items to score")
        if not scorers:
            raise InputError("give an evaluation, or other scorers for the run's first one")
        evaluation = first.evaluation.model_copy(update={"code": None})
    else:
        evaluation = given if isinstance(given, Evaluation) else Evaluation.parse(given)
    return evaluation.model_copy(update={"scorers": tuple(scorers)}) if scorers else evaluation


def _stored_items(folder: Path, evaluation: ResolvedEvaluation) -> tuple[str | None, list[Item] | None]:
    """Return the answered items of another evaluation of the run on which this one's scores depend, and its id."""
    for stored in results.read_evaluations(folder):
        if stored.record is not None and stored.status == "done" and _serves(stored.record.evaluation, evaluation.spec):
            items = _read_items(stored.folder / "items.jsonl", stored.record.files.get("items.jsonl"))
            if items is not None and len(items) == len(evaluation.held_out):
                return stored.eval_id, items
    return None, None


def _serves(stored: Evaluation, wanted: Evaluation) -> bool:
    """Whether the answers of one evaluation are all that another one scores."""
    return stored.answers_id == wanted.answers_id and needs_of(stored.scorers) >= needs_of(wanted.scorers)


def _read_items(file: Path, sha256: str | None = None) -> list[Item] | None:
    """Return stored items; None where the file is missing, has changed, or lacks what scorers need today."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        return None
    lines, damaged = read_lines(file)
    items = [item for line in lines if (item := item_of_line(line)) is not None]
    return items if not damaged and len(items) == len(lines) else None


def answer_as_teacher(run: ResolvedRun, watch: Watch, model: nn.Module) -> None:
    """Store the teacher's answers to the held-out items while its model is loaded, so that it is loaded once."""
    for evaluation in run.evaluations:
        _teacher_items(run, evaluation, watch, model)


def teacher_answers(run: ResolvedRun, evaluation: ResolvedEvaluation) -> Path | None:
    """Return the file with the teacher's answers, which may not be there yet; None without a teacher that generates.

    It is named by the content of teacher and evaluation, so that a study has the teacher answer once.
    """
    if run.spec.teacher is None or run.teacher is None or run.spec.teacher.endpoint is not None:
        return None
    live = run.spec.teacher.model_copy(update={"top_k": None, "samples": None, "device_map": None})
    needs = sorted(needs_of(without_teacher(evaluation.spec.scorers)))
    plain = live.model_dump_json(exclude={name for name, value in live if value is None and name not in _FIRST})
    content = f"{ENCODING_VERSION} {plain} {evaluation.spec.answers_id} {needs}"
    key = hashlib.sha256(content.encode()).hexdigest()[:32]
    return cache_folder("teacher-answers") / f"{key}.jsonl"


def _teacher_metrics(run: ResolvedRun, evaluation: ResolvedEvaluation, watch: Watch) -> dict[str, float]:
    """Return the teacher's metrics on the held-out items: the upper level that students are compared with.

    Empty without a teacher.
    """
    items = _teacher_items(run, evaluation, watch)
    scorers = without_teacher(evaluation.spec.scorers)
    return {} if items is None else metrics_of(items, score_items(items, scorers), scorers)


def _teacher_items(
    run: ResolvedRun, evaluation: ResolvedEvaluation, watch: Watch, model: nn.Module | None = None
) -> list[Item] | None:
    """Return the items with the teacher's answers, from disk where they are there; None without a teacher."""
    teacher, file = run.spec.teacher, teacher_answers(run, evaluation)
    if teacher is None or run.teacher is None or file is None:
        return None
    items = ranks.agree(lambda: _read_items(file))
    if items is None or len(items) != len(evaluation.held_out):
        if model is None:
            model = load_teacher(run.teacher, teacher, sharded=True)
        scoring = partial(watch, Activity("scoring the teacher", "items"))
        spec = evaluation.spec.model_copy(update={"scorers": tuple(without_teacher(evaluation.spec.scorers))})
        with dealing():
            items = answer_items(model, run.teacher.tokenizer, spec, evaluation.held_out, scoring)
        ranks.agree(partial(_store_items, file, items))
    return items


def _store_items(file: Path, items: Sequence[Item]) -> None:
    with replacing(file) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line_of_item(item), ensure_ascii=False) + "\n" for item in items)


def _write_card(folder: Path) -> None:
    """Write the card beside the weights again, with the scores of the first evaluation that is done."""
    record, first = results.read_record(folder), results.find_evaluation(folder, status="done")
    if record is not None and first is not None and first.record is not None and (folder / "model").is_dir():
        card = model_card(record.spec, first.record.metrics, [manifest.model_dump() for manifest in record.data])
        with replacing(folder / "model" / "README.md") as temporary:
            temporary.write_text(card, encoding="utf-8")
