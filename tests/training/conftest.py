"""A stage in progress on planned batches, and training in a process that can be killed."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def make_training(encoded, tokenizer, stage):
    """Make a stage in progress, and its micro-batches of the given examples in that order."""
    from accelerate import Accelerator

    from studykit.collate import PlannedBatches
    from studykit.data import StageData
    from studykit.generation.cost import Cost
    from studykit.methods import get_method
    from studykit.spec import Stage
    from studykit.training.resolved import ResolvedStage
    from studykit.training.state import Training

    def make(model, plan, *, method="sft", options=None, teacher=None, accumulation=1, **changes):
        settings = {"steps": len(plan) // accumulation, "batch_size": len(plan[0]), **changes}
        spec = Stage.model_validate(stage(gradient_accumulation_steps=accumulation, **settings))
        resolved = ResolvedStage(spec, get_method(method, **(options or {})), StageData([], encoded, {}))
        accelerator = Accelerator(cpu=True, mixed_precision="no")
        cost = Cost(student_tokens=0, padding_tokens=0)
        training = Training(accelerator, model, tokenizer, teacher, resolved, 0, cost)
        return training, PlannedBatches(encoded, plan, tokenizer.pad_token_id)

    return make


@pytest.fixture
def take_steps(tmp_path):
    """Take all steps of a stage in progress and return the lines of its `metrics.jsonl`."""
    from studykit.training.loop import train_steps
    from studykit.training.metrics import MetricsFile

    def take(training, planned):
        file = tmp_path / "metrics.jsonl"
        file.unlink(missing_ok=True)
        train_steps(training, planned, MetricsFile(file, 0), tmp_path / "checkpoints")
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    return take


@pytest.fixture
def in_process(start, join):
    """Run a function in a separate process and return its exit code."""
    return lambda function, *arguments: join(start(function, *arguments))


@pytest.fixture(scope="session")
def results_root(tmp_path_factory) -> Path:
    """Return a results folder for runs that name no other run."""
    return tmp_path_factory.mktemp("results")
