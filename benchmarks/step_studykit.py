"""The kit's contestants of `step.py`: sft, kd with the live teacher, kd with the cached one."""

import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from accelerate import Accelerator

from benchmarks.step_setup import (
    Setting,
    Stopwatch,
    make_model,
    make_sequences,
    make_trainer_settings,
    run_contestant,
    summarize,
)
from studykit.chat import Encoded
from studykit.collate import PlannedBatches
from studykit.data import StageData
from studykit.generation.cost import Cost
from studykit.methods import get_method
from studykit.models.names import ModelRef, Models
from studykit.models.projection import output_head
from studykit.spec import Stage, Teacher
from studykit.teacher import OpenTeacher, open_teacher
from studykit.training import loop
from studykit.training.metrics import MetricsFile
from studykit.training.resolved import ResolvedStage
from studykit.training.state import Training


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
    resolved = ResolvedStage(_stage(setting, folder), recipe, StageData([], encoded, {}))
    accelerator = Accelerator(cpu=setting.device == "cpu", mixed_precision="no")
    training = Training(accelerator, student, tokenizer, teacher, resolved, 0, Cost(student_tokens=0, padding_tokens=0))
    planned = PlannedBatches(encoded, list(rows.reshape(-1, setting.sequences)), tokenizer.pad_token_id)
    loss = _train(training, planned, watch, Path(folder))
    live = teacher is not None and setting.contestant == "kd live"
    return summarize(watch, student, teacher.model if teacher is not None and live else None, loss)


def _stage(setting: Setting, folder: str) -> Stage:
    """Return the settings that every contestant is given, in the words of a stage."""
    given = make_trainer_settings(setting, folder)
    same = {name: given[name] for name in ("learning_rate", "lr_scheduler_type", "max_grad_norm", "bf16")}
    sizes = {"steps": given["max_steps"], "batch_size": setting.sequences, "max_length": setting.length}
    return Stage.model_validate({"data": {"source": "made"}, "method": "kd", "warmup_ratio": 0.0, **sizes, **same})


def _train(training: Training, planned: PlannedBatches, watch: Stopwatch, folder: Path) -> float:
    """Take all steps under the stopwatch, with one log at the end, and return the logged loss."""
    step = loop.train_step

    def watched(*arguments: Any) -> dict[str, Any]:
        logged = step(*arguments)
        watch.on_step_end(None, SimpleNamespace(global_step=training.step), None)
        return logged

    with patch.object(loop, "train_step", watched), patch.object(loop, "LOGGED_STEPS", 1):
        metrics = MetricsFile(folder / "metrics.jsonl", 0)
        loop.train_steps(training, planned, metrics, folder / "checkpoints", checkpoint_every_s=float("inf"))
    return json.loads(metrics.file.read_text(encoding="utf-8"))["loss"]


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
