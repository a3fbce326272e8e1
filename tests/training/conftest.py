"""A trainer on planned batches, and training in a process that can be killed."""

from pathlib import Path

import pytest


@pytest.fixture
def make_trainer(tmp_path, encoded, tokenizer, stage):
    """Make a DistillTrainer that takes micro-batches of the given examples, in that order."""
    from studykit.collate import PlannedBatches
    from studykit.methods import get_method
    from studykit.spec import Stage
    from studykit.training.loop import DistillTrainer
    from studykit.training.stages import _arguments

    def make(model, plan, *, method="sft", options=None, teacher=None, accumulation=1, **changes):
        settings = {"steps": len(plan) // accumulation, "batch_size": len(plan[0]), **changes}
        spec = Stage.model_validate(stage(gradient_accumulation_steps=accumulation, **settings))
        return DistillTrainer(
            model=model,
            args=_arguments(spec, 0, tmp_path / "checkpoints"),
            train_dataset=PlannedBatches(encoded, plan, tokenizer.pad_token_id),
            processing_class=tokenizer,
            recipe=get_method(method, **(options or {})),
            teacher=teacher,
        )

    return make


@pytest.fixture
def in_process(start, join):
    """Run a function in a process of its own and return its exit code."""
    return lambda function, *arguments: join(start(function, *arguments))


@pytest.fixture(scope="session")
def results_root(tmp_path_factory) -> Path:
    """Return a results folder for runs that name no other run."""
    return tmp_path_factory.mktemp("results")
