"""Run the stages of a specification: resumable, the same final weights whether or not it was killed on the way.

    trained = train(run, folder)

Each stage checkpoints by wall time under `folder/checkpoints/`; a finished stage leaves its weights there, and the
next one starts from them.
"""

import gc
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils.generic import is_flash_attention_requested

from studykit.chat import encode
from studykit.collate import PlannedBatches, each_example_once, plan_batches
from studykit.files import replacing
from studykit.models.loading import device, has_bf16, load_student
from studykit.models.projection import output_head
from studykit.models.states import set_padding_free, unwrap
from studykit.spec import Stage
from studykit.teacher import OpenTeacher, open_teacher
from studykit.teacher.cross_tokenizer import CrossTokenizerTeacher
from studykit.training.checkpoints import is_complete, mark_complete, newest_complete
from studykit.training.loop import DistillTrainer
from studykit.training.resolved import ResolvedRun
from studykit.training.threads import chosen_threads

_WORKERS = 2
_PREFETCHED = 4


@dataclass
class Trained:
    """What training leaves behind.

    Attributes:
        model: the student after the last stage.
        tokenizer: its tokenizer.
        manifests: the data manifest of every stage.
        cost: tokens through student and teacher, generated tokens, seconds.
        threads: those that each stage was trained with on a CPU; None on an accelerator.
    """

    model: nn.Module
    tokenizer: Any
    manifests: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)
    threads: list[int | None] = field(default_factory=list)


def train(run: ResolvedRun, folder: Path, *, checkpoint_every_s: float = 60.0) -> Trained:
    """Train the student through all stages.

    Args:
        run: what `studykit.study.pin` returns.
        folder: the run's folder; metrics and checkpoints go there.
        checkpoint_every_s: wall time between checkpoints.

    Raises:
        InputError: a model that cannot be loaded as the specification wants it.
    """
    spec = run.spec
    trained = Trained(load_student(spec.student, run.student, spec.seed), run.student.tokenizer)
    teacher = None
    if run.teacher and spec.teacher and any(stage.recipe.trains_with_teacher for stage in run.stages):
        rows = output_head(trained.model).weight.shape[0]
        teacher = open_teacher(spec.teacher, run.teacher, trained.tokenizer, rows)
    for number in range(len(run.stages)):
        _train_stage(run, number, trained, teacher, folder, checkpoint_every_s)
    _without_float32_flash(trained.model)
    return trained


def _train_stage(
    run: ResolvedRun, number: int, trained: Trained, teacher: OpenTeacher | None, folder: Path, every_s: float
) -> None:
    """Train one stage, or take its result where a killed run had finished it."""
    finished = folder / "checkpoints" / f"stage-{number}" / "finished"
    trained.manifests.append(run.stages[number].data.manifest)
    if is_complete(finished):
        notes = json.loads((finished / "cost.json").read_text(encoding="utf-8"))
        trained.model.load_state_dict(torch.load(finished / "weights.pt", map_location="cpu", weights_only=True))
        trained.model.to(device())
    else:
        notes = _fit(run, number, trained, teacher, folder, every_s)
        _keep_finished(finished, trained.model, notes)
        _let_go()
    trained.threads.append(notes.pop("threads", None))
    for name, value in notes.items():
        trained.cost[name] = trained.cost.get(name, 0) + value


def _fit(
    run: ResolvedRun, number: int, trained: Trained, teacher: OpenTeacher | None, folder: Path, every_s: float
) -> dict[str, Any]:
    """Run the trainer from the newest whole checkpoint (or the start) to the end of the stage; return the cost, and
    the threads."""
    spec, place = run.spec, folder / "checkpoints" / f"stage-{number}"
    stage, recipe, data = run.stages[number].spec, run.stages[number].recipe, run.stages[number].data
    encoded, validation = data.encoded, run.stages[number].validation
    teacher = teacher if recipe.trains_with_teacher else None
    pad = trained.tokenizer.pad_token_id
    set_padding_free(trained.model, stage.padding_free)
    if teacher is not None:
        set_padding_free(teacher.model, stage.padding_free)
    started = time.monotonic()
    if teacher is not None:
        teacher.cost.update(dict.fromkeys(teacher.cost, 0))
    if isinstance(teacher, CrossTokenizerTeacher):
        teacher.pair(encoded, encode(data.examples, teacher.tokenizer, None))
    loss, rollout = recipe.parts
    if teacher is not None and loss.needs_teacher and not recipe.needs_live_teacher:
        teacher.prepare(encoded)
        if not rollout.needs_teacher:
            teacher.release()
    prepared = time.monotonic()
    _checkpoint_activations(trained.model, stage.gradient_checkpointing)
    count = stage.steps * stage.gradient_accumulation_steps
    generator = np.random.default_rng([spec.seed, number])
    plan = plan_batches(encoded.lengths, stage.batch_size, count, generator)
    trainer = DistillTrainer(
        model=trained.model,
        args=_arguments(stage, spec.seed, place),
        train_dataset=PlannedBatches(encoded, plan, pad),
        processing_class=trained.tokenizer,
        recipe=recipe,
        teacher=teacher,
        metrics_file=folder / "metrics.jsonl",
        stage=number,
        checkpoint_every_s=every_s,
        max_length=stage.max_length,
        validation=None if validation is None else each_example_once(validation, stage.batch_size, pad),
    )
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    checkpoint = newest_complete(place)
    if checkpoint is not None:
        trainer.restore(checkpoint)
    trainer.spent["teacher_s"] = trainer.spent.get("teacher_s", 0) + prepared - started
    _forget_metrics_after(folder / "metrics.jsonl", number, checkpoint)
    if "scored_tokens" in data.manifest:  # the teacher has read them, to choose
        trainer.spent["scored_tokens"] = data.manifest["scored_tokens"]
    with chosen_threads(trainer) as threads:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    _without_autocast(trained.model)
    return {**trainer.costs, "threads": threads}


def _arguments(stage: Stage, seed: int, place: Path) -> TrainingArguments:
    """Translate a stage into the Trainer's words: one planned epoch, in bf16 unasked where the GPU has it.

    For a GPU batches are made ahead in processes beside, in memory that it can copy from while it computes.
    """
    on_gpu = torch.cuda.is_available()
    bf16 = has_bf16() if stage.bf16 is None else stage.bf16
    arguments = TrainingArguments(
        output_dir=str(place),
        max_steps=stage.steps,
        per_device_train_batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.gradient_accumulation_steps,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.lr_scheduler_type,
        warmup_steps=round(stage.warmup_ratio * stage.steps),
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        seed=seed,
        bf16=bf16,
        use_cpu=device().type == "cpu",
        logging_strategy="steps",
        logging_steps=max(1, stage.steps // 50),
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=2,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=on_gpu,
        dataloader_num_workers=_WORKERS if on_gpu else 0,
        dataloader_prefetch_factor=_PREFETCHED if on_gpu else None,
        accelerator_config={"non_blocking": on_gpu},
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # with several GPUs in sight the Trainer would split every batch
    return arguments


def _checkpoint_activations(model: Any, asked: bool) -> None:
    """Keep what layers compute, or compute it again in the backward pass: as this stage wants it."""
    if asked:
        model.activation_checkpointing_enable()
        model.enable_input_require_grads()
    elif model.is_activation_checkpointing:
        model.activation_checkpointing_disable()
        model.disable_input_require_grads()


def _without_autocast(model: nn.Module) -> None:
    """Take off what accelerate put around the forward pass: the next stage may want another precision, and an
    evaluation must not depend on whether the training before it ran in the same process."""
    for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
        vars(model).pop(name, None)


def _without_float32_flash(model: nn.Module) -> None:
    """Leave flash attention where its precision, which the Trainer's autocast gave, ends with the training."""
    inner = unwrap(model)
    if is_flash_attention_requested(inner.config) and inner.dtype == torch.float32:
        inner.set_attn_implementation("sdpa")


def _let_go() -> None:
    """Free what a Trainer leaves in cycles, optimizer and teacher among it, before another model is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _keep_finished(finished: Path, model: nn.Module, notes: dict[str, Any]) -> None:
    """Leave a finished stage's weights where the next start finds them; then its checkpoints are no longer needed."""
    shutil.rmtree(finished, ignore_errors=True)
    finished.mkdir(parents=True)
    torch.save(model.state_dict(), finished / "weights.pt")
    (finished / "cost.json").write_text(json.dumps(notes), encoding="utf-8")
    mark_complete(finished)
    for old in (old for old in finished.parent.iterdir() if old != finished):
        shutil.rmtree(old, ignore_errors=True)


def _forget_metrics_after(file: Path, stage: int, checkpoint: Path | None) -> None:
    """Drop the lines a killed run had logged past its checkpoint: they will be logged again."""
    if not file.exists():
        return
    reached = (stage, 0 if checkpoint is None else int(checkpoint.name.partition("-")[2]))
    whole = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    kept = [line for line in whole if (json.loads(line)["stage"], json.loads(line)["step"]) <= reached]
    with replacing(file) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
