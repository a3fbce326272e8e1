"""`DistillTrainer`: the Trainer of transformers with rollouts, a teacher and the chunked head in place of its loss.

The trainer knows no method: it asks the recipe's rollout for sequences, the teacher for its signal, and the head for
the loss, which is divided by the supervised tokens of the whole optimizer step, over all micro-batches and ranks.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback

from studykit.collate import Batch
from studykit.files import replacing
from studykit.head import Labels, Objective, head_loss
from studykit.losses import Loss, get_loss
from studykit.methods import Recipe
from studykit.models.projection import output_head
from studykit.models.states import count_padding, evaluating, hidden_states
from studykit.models.vocabulary import token_rows
from studykit.rollouts import RolloutContext
from studykit.teacher import OpenTeacher
from studykit.training.checkpoints import mark_complete

_STATE = "method_state.pt"


class DistillTrainer(Trainer):
    """Train a student by a recipe.

    Args:
        recipe: loss, rollout and options.
        teacher: the open teacher, or None for methods without one.
        metrics_file: one JSON line per logging step is appended; None writes none.
        stage: number of the stage, written into each of those lines.
        checkpoint_every_s: wall time between checkpoints.
        max_length: most tokens of a generated sequence, prompt included.
        validation: batches that a rollout may ask the student's loss on.
        arguments: as `transformers.Trainer` takes them; `train_dataset` gives ready micro-batches.
    """

    def __init__(
        self,
        *arguments: Any,
        recipe: Recipe,
        teacher: OpenTeacher | None,
        metrics_file: Path | None = None,
        stage: int = 0,
        checkpoint_every_s: float = 60.0,
        max_length: int = 2048,
        validation: list[Batch] | None = None,
        **keywords: Any,
    ):
        super().__init__(*arguments, **keywords)
        self.model_accepts_loss_kwargs = True  # no division by accumulation steps behind our back
        self.recipe, self.teacher = recipe, teacher
        self.loss = recipe.make_loss()
        self.rollout = recipe.make_rollout()
        generator = torch.Generator().manual_seed(self.args.seed)
        student: Any = self.model
        tokenizer: Any = self.processing_class
        self.vocab_size = token_rows(tokenizer) if teacher is None else teacher.vocab_size
        self.validation = validation
        self.context = RolloutContext(
            student,
            teacher,
            self.processing_class,
            generator,
            max_length,
            validation_loss=None if validation is None else self.validation_loss,
        )
        self.sums: dict[str, Tensor] = {}  # since the last log
        self.step_sums: dict[str, Tensor] = {}  # since the optimizer step began
        self.tokens_seen = self.padding_tokens = 0
        self.spent: dict[str, float] = {}  # before a restart
        self.started = time.monotonic()
        self.add_callback(_Clock(self, checkpoint_every_s))
        if metrics_file is not None:
            self.add_callback(_MetricsFile(metrics_file, stage))

    def get_train_dataloader(self) -> DataLoader:
        """Return the planned micro-batches in their order.

        Each is an item, so that "batches" of one item are asked for: without a batch sampler (`batch_size=None`)
        accelerate cannot skip what a resumed run has seen, and fails.
        """
        planned: Any = self.train_dataset
        loader = DataLoader(
            planned,
            batch_size=1,
            shuffle=False,
            collate_fn=_only,
            num_workers=self.args.dataloader_num_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """Take the micro-batches of one optimizer step, let the rollout decide what is trained on, count its tokens."""
        self.context.progress = self.state.global_step / self.state.max_steps  # on_step_begin comes after this
        student: Any = self.model
        batches = []
        for _ in range(num_batches):
            item = next(epoch_iterator, None)
            if item is None:
                break
            with torch.no_grad(), self.compute_loss_context_manager():
                batches.append(self.rollout(Batch(**item), self.context))
                self.padding_tokens += count_padding(student, batches[-1].attention_mask)
        counted = sum(int(batch.target_count) for batch in batches)
        total: Any = self.accelerator.gather(torch.tensor(counted, device=device))
        self.tokens_seen += sum(int(batch.attention_mask.sum()) for batch in batches)
        return [vars(batch) for batch in batches], total.sum()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of one micro-batch, already divided by the tokens of the whole optimizer step."""
        batch = Batch(**inputs)
        hidden = hidden_states(model, batch.input_ids, batch.attention_mask)
        signal = self.teacher.signal(batch) if self.teacher is not None and self.loss.needs_teacher else None
        denominator = batch.target_count if num_items_in_batch is None else num_items_in_batch
        head = output_head(model, self.vocab_size)
        labels = Labels(batch.target, batch.sequence, None if batch.author is None else batch.author[batch.sequence])
        with self.accelerator.autocast():  # the Trainer wraps no more than the model's own pass
            loss, sums = head_loss(batch.predicting(hidden), head, signal, labels, self.objective(), denominator)
        for kept in (self.sums, self.step_sums):
            for name, value in sums.items():
                kept[name] = kept.get(name, 0) + value
        loss = loss * self.accelerator.num_processes  # data parallelism averages gradients over ranks
        return (loss, None) if return_outputs else loss

    def objective(self) -> Objective:
        """Return the recipe's mixture of loss and cross-entropy at this step."""
        recipe = self.recipe
        return Objective(self.loss, recipe.kd_ratio, recipe.temperature, recipe.scale_by_t2, self.context.progress)

    def cross_entropy(self, batch: Batch) -> Tensor:
        """Return the student's cross-entropy on a batch, summed over supervised tokens, nats."""
        student: Any = self.model
        head, hidden = (
            output_head(student, self.vocab_size),
            hidden_states(student, batch.input_ids, batch.attention_mask),
        )
        with self.accelerator.autocast():
            objective = Objective(get_loss("cross_entropy"))
            loss, _ = head_loss(batch.predicting(hidden), head, None, Labels(batch.target), objective, denominator=1)
        return loss

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the student's mean cross-entropy on the validation data, nats per token."""
        student: Any = self.model
        total = tokens = 0.0
        with evaluating(student):
            for batch in self.validation or []:
                moved: Any = self._prepare_inputs(vars(batch))
                batch = Batch(**moved)
                total, tokens = total + float(self.cross_entropy(batch)), tokens + len(batch.target)
        return total / max(tokens, 1)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log means per supervised token since the last log, beside the Trainer's own values."""
        if self.sums and "loss" in logs:
            tokens = float(self.sums.pop("tokens"))
            means = {name: float(value) / tokens for name, value in self.sums.items()}
            metrics = {name: total / count for name, (total, count) in self.context.metrics.items() if count}
            metrics |= self.loss.metrics()
            logs = {**logs, "mean_token_accuracy": means.pop("correct"), **means, **metrics}
            logs["num_tokens"] = self.tokens_seen
            self.sums, self.context.metrics = {}, {}
        super().log(logs, start_time)

    def step_mean(self, name: str) -> float:
        """Return a metric's mean per supervised token over the current optimizer step, all ranks together."""
        if not self.step_sums:
            return 0.0
        both = torch.stack([self.step_sums[name].double(), self.step_sums["tokens"].double()])
        total: Any = self.accelerator.reduce(both, reduction="sum")
        return float(total[0] / total[1])

    def create_optimizer(self, *arguments: Any, **keywords: Any) -> torch.optim.Optimizer:
        """Add what the loss learns to the optimizer, or it would never move."""
        optimizer = super().create_optimizer(*arguments, **keywords)
        if self.loss.parameters() and not hasattr(self, "_learns"):
            rate = self.loss.learning_rate or self.args.learning_rate
            optimizer.add_param_group({"params": self.loss.parameters(), "weight_decay": 0.0, "lr": rate})
            self._learns = True
        return optimizer

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        checkpoint = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        state = {
            "loss": self.loss.state_dict(),
            "rollout": self.rollout.state_dict(),
            "generator": self.context.generator.get_state(),
            "tokens_seen": self.tokens_seen,
            "spent": self.costs,
        }
        with replacing(checkpoint / _STATE) as temporary:
            torch.save(state, temporary)
        mark_complete(checkpoint)

    def restore(self, checkpoint: Path) -> None:
        """Take back what `transformers` does not keep: the state of loss and rollout, and the cost so far."""
        state = torch.load(checkpoint / _STATE, weights_only=True)
        self.loss.load_state_dict(state["loss"])
        self.rollout.load_state_dict(state["rollout"])
        self.context.generator.set_state(state["generator"])
        self.tokens_seen = state["tokens_seen"]
        self.spent = state["spent"]

    @property
    def costs(self) -> dict[str, float]:
        """What this stage has cost so far, restarts included: tokens through student and teacher, seconds."""
        now = {"train_s": time.monotonic() - self.started, "student_tokens": self.tokens_seen, **self.context.cost}
        now["padding_tokens"] = self.padding_tokens  # through the student, beside its tokens
        now |= self.teacher.cost if self.teacher else {}
        now["student_tokens"] -= self.spent.get("student_tokens", 0)  # tokens_seen was restored with the rest
        return {name: self.spent.get(name, 0) + now.get(name, 0) for name in self.spent | now}


def _only(items: list[dict]) -> dict:
    (item,) = items
    return item


class _Clock(TrainerCallback):
    """Tell loss and rollout how far the stage is, step the loss, and ask for a checkpoint when it is time."""

    def __init__(self, trainer: DistillTrainer, every_s: float):
        self.trainer, self.every_s = trainer, every_s
        self.saved = time.monotonic()

    def on_step_begin(self, args, state, control, **keywords):
        self.trainer.step_sums = {}
        for learned in self.trainer.loss.parameters():
            learned.grad = None  # the Trainer clears the gradients of the model only, not those of its optimizer

    def on_step_end(self, args, state, control, **keywords):
        if type(self.trainer.loss).step is not Loss.step:  # reading a number from the device waits for it
            self.trainer.loss.step(self.trainer.step_mean("kd_loss"), state.global_step / state.max_steps)
        if time.monotonic() - self.saved >= self.every_s:
            self.saved = time.monotonic()
            control.should_save = True


class _MetricsFile(TrainerCallback):
    """Append each log to a file, one JSON object per line."""

    def __init__(self, file: Path, stage: int):
        self.file, self.stage = file, stage

    def on_log(self, args, state, control, logs=None, **keywords):
        if logs and not all(math.isfinite(logs.get(name, 0.0)) for name in ("loss", "grad_norm")):
            raise FloatingPointError(
                f"training diverged: loss is {logs.get('loss')} and the gradient's norm {logs.get('grad_norm')} at "
                f"step {state.global_step}, learning rate {logs.get('learning_rate', args.learning_rate):.2g}; lower "
                "learning_rate or max_grad_norm"
            )
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        line = {"stage": self.stage, "step": state.global_step, "time_s": round(time.time(), 3), **logs}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")
