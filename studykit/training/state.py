"""A stage in progress: student, optimizer, schedule, rollout, and all else that a checkpoint keeps."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from studykit.collate import Batch, each_example_once
from studykit.generation.cost import Cost
from studykit.losses import Author, Loss
from studykit.methods import Recipe
from studykit.models.loading import has_bf16
from studykit.models.sharding import full_size, load_whole, load_whole_optimizer, prepare, whole_optimizer
from studykit.models.states import choose_packing
from studykit.models.vocabulary import token_rows
from studykit.rollouts import Rollout, RolloutContext
from studykit.teacher import OpenTeacher
from studykit.training.best import Best
from studykit.training.checkpoints import random_states, set_random_states, trained_state
from studykit.training.metrics import Averages
from studykit.training.optimizer import make_optimizer, make_schedule
from studykit.training.resolved import ResolvedStage


@dataclass
class Learner:
    """A method at work: its recipe, and the loss and the rollout with their state."""

    recipe: Recipe
    loss: Loss
    rollout: Rollout


class Training:
    """What an optimizer step reads and changes.

    Args:
        accelerator: places model and batches and knows the other processes; mixed precision is left to `autocast`.
        student: the model to train.
        tokenizer: the student's.
        teacher: None for methods without one.
        stage: specification, recipe and data.
        seed: of dropout and of the rollout.
        cost: of the stage, in this process; the teacher adds to it too.

    Attributes:
        step: optimizer steps taken.
        student: as `accelerate` wraps it; `context.student` is the model itself.
        learners: the stage's methods, most often one.
        packed: whether padding is left out of the student's batches.
        counted: what is the same in all processes is added here: the cost of the main one, elsewhere no one's.
        best: the weights of the best validation score so far; None where the last ones are kept.
        sequences: number of sequences trained on, repetitions included: the data's by annotator, others by `Author`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        student: Any,
        tokenizer: Any,
        teacher: OpenTeacher | None,
        stage: ResolvedStage,
        seed: int,
        cost: Cost,
    ):
        set_seed(seed, device_specific=True)
        self.accelerator, self.teacher, self.stage, self.spec = accelerator, teacher, stage, stage.spec
        self.learners = [Learner(recipe, *recipe.make_parts()) for recipe in stage.recipes]
        self.bf16 = has_bf16() if self.spec.bf16 is None else self.spec.bf16
        optimizer = make_optimizer(student, [learner.loss for learner in self.learners], self.spec)
        self.student, self.optimizer = prepare(accelerator, student, optimizer)
        self.schedule = make_schedule(self.optimizer, self.spec)
        with self.autocast():
            self.packed = choose_packing(self.student, self.spec.padding_free)
        self.vocab_size = token_rows(tokenizer) if teacher is None else teacher.vocab_size
        self.step, self.epochs = 0, stage.usage.epochs
        self.best = Best(self.spec) if self.spec.load_best_model_at_end else None
        self.cost, self.counted = cost, cost if accelerator.is_main_process else Cost()
        self.averages = Averages(accelerator)
        self.context = RolloutContext(
            student,
            teacher,
            tokenizer,
            torch.Generator().manual_seed(seed),
            self.spec.max_length,
            cost=self.counted,
        )
        self.sequences: dict[str, Counter[str]] = {"data": Counter(), "generated": Counter()}
        self.validation: list[Batch] = []
        if stage.validation is not None:
            self.validation = each_example_once(stage.validation, self.spec.batch_size, tokenizer.pad_token_id)

    def autocast(self) -> torch.autocast:
        """Return the context in which the student's products are computed: bf16 where the stage has it on."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bf16)

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of a checkpoint, about: what is trained, in float32, and the two moments of AdamW."""
        return 12 * sum(full_size(p) for p in self.context.student.parameters() if p.requires_grad)

    def count_sequences(self, batch: Batch, annotators: Sequence[str]) -> None:
        """Count the rows of a batch that have a supervised token; where they are the data's, by those annotators."""
        authors = [Author.DATA] * len(batch.input_ids) if batch.author is None else batch.author.tolist()
        for row, (author, is_trained) in enumerate(zip(authors, batch.has_target.tolist(), strict=True)):
            if is_trained and author != Author.DATA:
                self.sequences["generated"][Author(author).name.lower()] += 1
            elif is_trained and annotators:
                self.sequences["data"][annotators[row]] += 1

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Return the student's state without its frozen parameters."""
        return trained_state(self.context.student)

    def load_best(self) -> None:
        """Give the student the best weights so far, where they are kept; frozen parameters are not among them."""
        if self.best is not None:
            load_whole(self.context.student, self.best.weights)

    def shared_state(self) -> dict[str, Any]:
        """Return the state that is the same in all processes."""
        best = {} if self.best is None else {"best": self.best.state_dict()}
        return best | {
            "step": self.step,
            "student": self.trained_state(),
            "optimizer": whole_optimizer(self.optimizer),
            "schedule": self.schedule.state_dict(),
            "losses": [learner.loss.state_dict() for learner in self.learners],
            "rollouts": [learner.rollout.state_dict() for learner in self.learners],
            "generator": self.context.generator.get_state(),
            "ratios": self.context.metrics,
            "answers": dict(self.context.answers),
            "sequences": {kind: dict(counts) for kind, counts in self.sequences.items()},
        }

    def own_state(self) -> dict[str, Any]:
        """Return the state that belongs to this process."""
        self.cost.add_seconds("train_s")
        return {
            "random": random_states(self.accelerator.device),
            "cost": self.cost.state_dict(),
            "averages": self.averages.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `shared_state` and `own_state` returned."""
        self.step = state["step"]
        if self.best is not None:
            self.best.load_state_dict(state["best"])
        load_whole(self.context.student, state["student"])  # frozen parameters are not in it
        load_whole_optimizer(self.optimizer, state["optimizer"])
        for part in ("schedule", "cost", "averages"):
            if state[part] is not None:
                getattr(self, part).load_state_dict(state[part])
        for learner, loss, rollout in zip(self.learners, state["losses"], state["rollouts"], strict=True):
            learner.loss.load_state_dict(loss)
            learner.rollout.load_state_dict(rollout)
        self.context.metrics, self.context.answers = state["ratios"], Counter(state["answers"])
        self.sequences = {kind: Counter(counts) for kind, counts in state["sequences"].items()}
        self.context.generator.set_state(state["generator"])
        if state["random"] is not None:
            set_random_states(state["random"], self.accelerator.device)
