"""Train a student through the stages of a run: resumable, with the same final weights whether or not it was killed.

    trained = train(resolved, folder)

Each stage writes checkpoints by wall time under `folder/checkpoints/`, from the newest of which a killed run resumes. A
finished stage leaves its weights there, and the next one starts from them.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from transformers.utils.generic import is_flash_attention_requested

from studykit.chat import Encoded, encode
from studykit.collate import PlannedBatches
from studykit.files import write_json
from studykit.generation.cost import Cost
from studykit.models.loading import device, load_student
from studykit.models.names import ModelRef
from studykit.models.projection import output_head
from studykit.models.sharding import is_sharding, load_whole, shard
from studykit.models.states import unwrap
from studykit.results.status import Activity, Watch, unwatched
from studykit.spec import Teacher
from studykit.teacher import OpenTeacher, open_teacher
from studykit.teacher.cached import StoredTeacher
from studykit.teacher.cross_tokenizer import CrossTokenizerTeacher
from studykit.training import ranks
from studykit.training.checkpoints import is_complete, load_own, mark_complete, newest_complete, trained_state
from studykit.training.dry_run import dry_run, try_teacher
from studykit.training.loop import train_steps
from studykit.training.metrics import MetricsFile, sum_over_processes
from studykit.training.resolved import ResolvedRun, ResolvedStage, Usage, usage_of_parts
from studykit.training.spending import Spending
from studykit.training.state import Training
from studykit.training.threads import chosen_threads

_FINISHED = "finished"


@dataclass
class Trained:
    """The result of training.

    Attributes:
        model: the student after the last stage.
        tokenizer: its tokenizer.
        manifests: the data manifest of every stage.
        cost: tokens and seconds of all stages.
        threads: that each stage computed with on a CPU; None on an accelerator.
    """

    model: nn.Module
    tokenizer: Any
    manifests: list[dict[str, Any]] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    threads: list[int | None] = field(default_factory=list)


@dataclass(frozen=True)
class Finished:
    """What a finished stage leaves beside its weights, in `result.json`.

    Attributes:
        cost: tokens and seconds of the stage.
        threads: that it computed with on a CPU; None on an accelerator.
        answers: number of answers that were generated, and how many of them ended or were cut.
        sequences: number of sequences by author, of the `data` and of those that were `generated`.
        best: what is recorded of the weights that were kept; None where they are those of the last step.
    """

    cost: dict[str, Any]
    threads: int | None
    answers: dict[str, int]
    sequences: dict[str, dict[str, int]]
    best: dict[str, Any] | None = None

    def trained_on(self, teacher: tuple[Teacher, ModelRef] | None) -> dict[str, Any]:
        """Return the part of the manifest on the answers that were trained on and the weights that were kept."""
        names = {"teacher": "the teacher" if teacher is None else teacher[0].name, "student": "the student"}
        counts = Counter(self.sequences["data"])
        for author, count in self.sequences["generated"].items():
            counts[names[author]] += count
        answers = {f"{kind}_answers": int(count) for kind, count in self.answers.items()}
        trained = {"trained_on": {name: int(count) for name, count in sorted(counts.items())}}
        return trained | answers | (self.best or {})


def train(
    resolved: ResolvedRun,
    folder: Path,
    *,
    checkpoint_every_s: float = 60.0,
    watch: Watch = unwatched,
    with_teacher: Callable[[nn.Module], object] = lambda model: None,
) -> Trained:
    """Train the student through all stages.

    Args:
        resolved: a pinned specification with its models and data.
        folder: the run's folder; metrics and checkpoints go there.
        checkpoint_every_s: least wall time between checkpoints; 0 saves after every step.
        watch: follows the work.
        with_teacher: called with the teacher's model while it is loaded, where a stage trains with one.

    Raises:
        InputError: a model that cannot be loaded, trained, generated with or saved.
    """
    accelerator = Accelerator(cpu=device().type == "cpu", mixed_precision="no")
    watch(Activity("loading the models"), 0, 0)
    student = open_student(resolved, folder)
    trained = Trained(student, resolved.student.tokenizer)
    teacher: OpenTeacher | None = None
    opened: tuple[Teacher, ModelRef] | None = None
    for number, stage in enumerate(resolved.stages):
        stage_folder = folder / "checkpoints" / f"stage-{number}"
        result = load_finished(stage_folder, student)
        if result is None:
            if stage.trains_with_teacher and resolved.teacher_of(stage) != opened:
                teacher, opened = None, resolved.teacher_of(stage)  # the one before is freed first
                teacher = open_teacher_of(resolved, stage, student)
                try_teacher(resolved, stage, teacher)
                if teacher is not None and teacher.model is not None and stage.spec.teacher is None:
                    with_teacher(teacher.model)
            part = name_part(resolved, number)
            metrics = MetricsFile(folder / "metrics.jsonl", number)
            job = StageJob(accelerator, stage, stage_folder, metrics, part, watch)
            with stage.spec.applied_to("training", student):
                result = train_stage(job, trained, teacher, resolved.spec.seed, checkpoint_every_s)
            save_finished(job, student, result)
            accelerator.free_memory()  # optimizer and teacher, before another model is loaded
        plan = stage.plan()
        usage = Usage.of(plan, len(stage.data.encoded)).manifest | usage_of_parts(stage.data, plan)
        trained.manifests.append(stage.data.manifest | usage | result.trained_on(resolved.teacher_of(stage)))
        trained.cost.add(**result.cost)
        trained.threads.append(result.threads)
    trained.cost["attempts"] = 1 + trained.cost.pop("failed_attempts", 0)
    leave_float32_flash(student)
    return trained


def open_student(resolved: ResolvedRun, folder: Path) -> nn.Module:
    """Load the student, try what the run will do with it where nothing is trained yet, and shard it if need be."""
    student = load_student(resolved.spec.student, resolved.student, resolved.spec.seed)
    if not (folder / "checkpoints").exists():
        dry_run(resolved, student, folder)
    if is_sharding():
        shard(student)
    return student


@dataclass(frozen=True)
class StageJob:
    """Where a stage is trained.

    Attributes:
        accelerator: knows devices and processes.
        stage: what is trained.
        folder: of its checkpoints.
        metrics: its training curve.
        part: names it among the stages of the run, for the watch.
        watch: follows the work.
    """

    accelerator: Accelerator
    stage: ResolvedStage
    folder: Path
    metrics: MetricsFile
    part: str
    watch: Watch

    def follow(self, activity: str, unit: str) -> Callable[[int, int], None]:
        """Return what follows one activity of this stage, by the number of units done and of all."""
        return partial(self.watch, Activity(activity, unit, self.part))


def train_stage(
    job: StageJob, trained: Trained, teacher: OpenTeacher | None, seed: int, checkpoint_every_s: float
) -> Finished:
    """Train one stage from its newest complete checkpoint, or from the start."""
    accelerator, stage = job.accelerator, job.stage
    with accelerator.main_process_first():  # `newest_complete` moves damaged checkpoints aside
        checkpoint = newest_complete(job.folder)
    spending, cost = open_spending(job, checkpoint)
    plan = stage.plan()
    usage = Usage.of(plan, len(stage.data.encoded))
    asking = job.follow("asking the teacher", "positions")
    if checkpoint is None and accelerator.is_main_process:
        asking = spending.follow(asking, cost, "teacher_s", before_training=True)
    teacher = prepare_teacher(teacher, stage, usage, cost, asking)
    training = Training(accelerator, trained.model, trained.tokenizer, teacher, stage, seed, cost)
    if accelerator.is_main_process:  # from here on the run is not wrong input
        spending.begin(cost if checkpoint is None else None)
    annotators = [example.annotator for example in stage.data.examples]
    planned = PlannedBatches(stage.data.encoded, plan, trained.tokenizer.pad_token_id, annotators, stage.methods)
    with chosen_threads(training, planned) as threads:
        watch = job.follow("training", "steps")
        watch = spending.follow(watch, cost, "train_s") if accelerator.is_main_process else watch
        train_steps(training, planned, job.metrics, job.folder, checkpoint, checkpoint_every_s, watch)
    spending.close()
    cost.add_seconds("train_s")
    return Finished(
        cost=cost | sum_over_processes(cost.tokens()) | {"failed_attempts": spending.attempts - 1},
        threads=threads,
        answers=dict(training.context.answers),
        sequences={kind: dict(counts) for kind, counts in training.sequences.items()},
        best=None if training.best is None else training.best.found,
    )


def open_spending(job: StageJob, checkpoint: Path | None) -> tuple[Spending, Cost]:
    """Return the notes of what the stage has cost, and the cost that this process goes on from.

    It holds the work that was lost with the last process; what a checkpoint holds is added when it is loaded. Of
    several processes the main one counts what they have in common.
    """
    spending, cost = Spending(job.folder), Cost(student_tokens=0, padding_tokens=0)
    if not job.accelerator.is_main_process:
        return spending, cost
    if checkpoint is not None:
        kept = load_own(checkpoint, job.accelerator)["cost"]
    elif spending.prepared is not None:
        kept = spending.prepared
    else:  # the tokens that the teacher read to select the data
        kept = {name: count for name, count in job.stage.data.manifest.items() if name == "scored_tokens"}
    if checkpoint is None:
        cost.add(**kept)
    cost.add(**spending.lost(kept))
    return spending, cost


def name_part(resolved: ResolvedRun, number: int) -> str:
    """Return the name of a stage for the watch: its method, and of several its number."""
    method, count = resolved.stages[number].spec.label, len(resolved.stages)
    return method if count == 1 else f"stage {number + 1} of {count}, {method}"


def open_teacher_of(resolved: ResolvedRun, stage: ResolvedStage, student: nn.Module) -> OpenTeacher | None:
    """Open the teacher of a stage; None where it has none."""
    if (teacher := resolved.teacher_of(stage)) is None:
        return None
    return open_teacher(*teacher, resolved.student.tokenizer, output_head(student).weight.shape[0])


def prepare_teacher(
    teacher: OpenTeacher | None, stage: ResolvedStage, usage: Usage, cost: Cost, watch: Callable[[int, int], None]
) -> OpenTeacher | None:
    """Return the teacher ready for what the stage takes of its data, counting on its cost; None where the stage trains
    without."""
    encoded, rows = stage.data.encoded, stage.captured(usage.rows)
    if teacher is not None and stage.trains_with_teacher:
        cost.add(**dict.fromkeys(teacher.cost, 0))
        teacher.cost = cost
        teacher.pack_batches(stage.spec.padding_free)
        if isinstance(teacher, CrossTokenizerTeacher):
            examples = stage.data.examples
            teacher.pair(examples, encoded, encode(examples, teacher.tokenizer, None))
        losses, rollouts = zip(*(recipe.parts for recipe in stage.recipes), strict=True)
        is_live = any(recipe.needs_live_teacher for recipe in stage.recipes)
        if any(loss.needs_teacher for loss in losses) and not is_live:
            _prepare(teacher, encoded, rows, watch)
            if not any(rollout.needs_teacher for rollout in rollouts):
                teacher.release()
    cost.add_seconds("teacher_s")
    return teacher if stage.trains_with_teacher else None


def _prepare(teacher: OpenTeacher, encoded: Encoded, rows: np.ndarray, watch: Callable[[int, int], None]) -> None:
    """Ask for the teacher's signals, each process of the run for a part of the sequences: then all find all of them."""
    count, mine = ranks.count(), ranks.index()
    if count == 1 or not isinstance(teacher, StoredTeacher):
        teacher.prepare(encoded.take(rows), watch)
        return
    is_mine = [int(encoded.key_of(row), 16) % count == mine for row in rows.tolist()]  # equal ones go to one process
    teacher.prepare(encoded.take(rows[is_mine]), watch)
    ranks.wait()
    teacher.find(encoded.take(rows))


def leave_float32_flash(model: nn.Module) -> None:
    """Leave flash attention where its precision, which only the training's autocast gave, ends with the training."""
    inner = unwrap(model)
    if is_flash_attention_requested(inner.config) and inner.dtype == torch.float32:
        inner.set_attn_implementation("sdpa")


def save_finished(job: StageJob, student: nn.Module, result: Finished) -> None:
    """Save a finished stage for the next start and the next stage, and delete its checkpoints."""
    finished, weights = job.folder / _FINISHED, trained_state(student)
    if job.accelerator.is_main_process:
        shutil.rmtree(finished, ignore_errors=True)
        finished.mkdir(parents=True)
        torch.save(weights, finished / "weights.pt")
        write_json(finished / "result.json", vars(result))
        mark_complete(finished)
        for old in (old for old in job.folder.iterdir() if old != finished):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    job.accelerator.wait_for_everyone()


def load_finished(folder: Path, student: nn.Module) -> Finished | None:
    """Load the weights of a finished stage and return what it left; None where it has not finished."""
    finished = folder / _FINISHED
    if not is_complete(finished):
        return None
    weights = torch.load(finished / "weights.pt", map_location="cpu", weights_only=True)
    load_whole(student, weights)  # frozen parameters are not among them
    if not is_sharding():
        student.to(device())
    return Finished(**json.loads((finished / "result.json").read_text(encoding="utf-8")))
