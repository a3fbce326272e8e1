"""The kit's contestants of `step.py`: sft, kd with the live teacher, kd with the cached one."""

import os
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from benchmarks.step_setup import (
    Setting,
    Stopwatch,
    make_model,
    make_sequences,
    make_trainer_settings,
    measure_training,
    run_contestant,
)
from studykit.chat import Encoded
from studykit.collate import PlannedBatches
from studykit.methods import get_method
from studykit.models.names import ModelRef, Models
from studykit.models.projection import output_head
from studykit.spec import Teacher
from studykit.teacher import OpenTeacher, open_teacher
from studykit.training.loop import DistillTrainer


def run(setting: Setting, folder: str) -> dict[str, float]:
    """Train as `studykit.training` does, with the models of the shape."""
    recipe = get_method("sft" if setting.contestant == "sft" else "kd")
    source = Models(folder).find(setting.tokenizer)
    tokenizer = source.tokenizer
    watch = Stopwatch(setting)
    student = make_model(setting, "student")
    ids = make_sequences(setting)
    rows = np.arange(len(ids))
    loss_mask = np.broadcast_to(np.arange(setting.length) >= setting.prompt, ids.shape)
    encoded = Encoded.of(list(ids), list(loss_mask))
    teacher = None
    if setting.contestant != "sft":
        teacher = _open(setting, source, output_head(student).weight.shape[0])
        teacher.prepare(encoded)
        teacher.release()
    trainer = DistillTrainer(
        model=student,
        args=TrainingArguments(**make_trainer_settings(setting, folder)),
        train_dataset=PlannedBatches(encoded, list(rows.reshape(-1, setting.sequences)), tokenizer.pad_token_id),
        processing_class=tokenizer,
        recipe=recipe,
        teacher=teacher,
        metrics_file=Path(folder) / "metrics.jsonl",
        checkpoint_every_s=float("inf"),
        max_length=setting.length,
    )
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    live = teacher is not None and setting.contestant == "kd live"
    return measure_training(trainer, watch, teacher.model if teacher is not None and live else None)


def _open(setting: Setting, source: ModelRef, student_rows: int) -> OpenTeacher:
    """Open the teacher as a run does, but with random weights instead of those on disk."""
    model = make_model(setting, "teacher").eval().requires_grad_(False)
    top_k = setting.top_k if setting.contestant == "kd cached" else None
    spec = Teacher(name=setting.tokenizer, top_k=top_k, sha256="random")
    with patch("studykit.teacher.load_teacher", lambda *_, **__: model):
        return open_teacher(spec, source, source.tokenizer, student_rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        os.environ["STUDYKIT_CACHE"] = cache
        run_contestant(run)
