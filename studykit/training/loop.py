"""The training loop of one stage, flat: `train_steps` and `train_step` read from top to bottom.

    training = Training(accelerator, student, tokenizer, teacher, stage, seed, cost)
    train_steps(training, planned, MetricsFile(file, number), folder)

The loop knows no method: the recipe's rollout gives the sequences, the teacher its signal, and the chunked head the
loss. Where the parts of a step have other methods, each method trains the rows of its parts. The loss is divided by the
number of supervised tokens of the whole optimizer step, over all micro-batches and processes. Each process trains on
some rows of every micro-batch, and gradients are averaged (`studykit.training.ranks`).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from studykit.collate import Batch, PlannedBatches
from studykit.generation.peers import dealing
from studykit.head import Labels, Objective, head_loss
from studykit.losses import Loss, get_loss
from studykit.models.projection import output_head
from studykit.models.sharding import clip
from studykit.models.states import autocasting, evaluating, hidden_states
from studykit.training import checkpoints
from studykit.training.best import LOSS, validation_metric
from studykit.training.checkpoints import SHARE, Pace
from studykit.training.metrics import MetricsFile, check_finite, sum_over_processes
from studykit.training.ranks import agree
from studykit.training.state import Training
from studykit.training.stopping import Stopped, until_stopped

LOGGED_STEPS = 50
_WORKERS, _PREFETCHED = 2, 4


def train_steps(
    training: Training,
    planned: PlannedBatches,
    metrics: MetricsFile,
    folder: Path,
    checkpoint: Path | None = None,
    checkpoint_every_s: float = 60.0,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Train to the last step of the stage.

    Args:
        training: at its start.
        planned: the micro-batches of all steps, in their order.
        metrics: gets a line for about fifty of the steps.
        folder: where checkpoints go.
        checkpoint: to resume from; None begins at the start.
        checkpoint_every_s: least wall time between checkpoints, which take no more than their share of it; 0 saves
            after every step.
        watch: called with the number of steps taken, and of all of them.

    Raises:
        Stopped: a process received SIGTERM; a checkpoint has been saved.
    """
    spec, accelerator = training.spec, training.accelerator
    state = {"step": 0} if checkpoint is None else checkpoints.load(checkpoint, accelerator)
    batches = iter(load_batches(planned, state["step"] * spec.gradient_accumulation_steps, accelerator))
    if checkpoint is not None:  # after the line above, which draws a random number
        training.load_state_dict(state)
    if accelerator.is_main_process:
        metrics.drop_after(training.step)
    if training.validation:
        training.context.validation_loss = partial(validation_loss, training)
    training.student.train()
    log_every = max(1, spec.planned_steps // LOGGED_STEPS)
    pace = Pace(checkpoint_every_s, spec.checkpoint_share or SHARE, training.checkpoint_bytes)
    watch(training.step, spec.planned_steps)
    with until_stopped() as is_stopped:
        while training.step < spec.planned_steps:
            logged = train_step(training, list(islice(batches, spec.gradient_accumulation_steps)))
            watch(training.step, spec.planned_steps)
            keep_if_best(training)
            if training.step % log_every == 0:
                log(training, metrics, log_every, logged)
            stopped, due = map(any, zip(*gather_object([(is_stopped(), pace.is_due())]), strict=True))
            if stopped or due:
                with pace.saving():
                    checkpoints.save(folder, training.step, training.shared_state(), training.own_state(), accelerator)
            if stopped:
                raise Stopped(f"stopped by SIGTERM after {training.step} steps, with a checkpoint")
    training.load_best()


def load_batches(planned: PlannedBatches, done: int, accelerator: Accelerator) -> DataLoader:
    """Return the micro-batches after the first `done`.

    For a GPU, worker processes make them ahead, in memory from which they are copied while the GPU computes.
    """
    batches = planned.taking(planned.plan[done:])
    if accelerator.device.type != "cuda":
        return DataLoader(batches, batch_size=None)
    return DataLoader(batches, batch_size=None, num_workers=_WORKERS, prefetch_factor=_PREFETCHED, pin_memory=True)


def train_step(training: Training, batches: Sequence[Batch]) -> dict[str, Any]:
    """Take one optimizer step on micro-batches of the data; return the gradient's norm and the learning rate."""
    accelerator, spec = training.accelerator, training.spec
    training.context.progress = training.step / spec.planned_steps
    batches = [choose_sequences(training, part) for batch in batches for part in batch.by_method()]
    denominator = count_supervised(training, batches)
    sums: list[list[dict[str, Tensor]]] = [[] for _ in training.learners]
    for number, batch in enumerate(batches, 1):
        with nullcontext() if number == len(batches) else accelerator.no_sync(training.student):
            loss, sums_of_batch = compute_loss(training, batch, denominator)
            accelerator.backward(loss)
        training.averages.add(loss.detach() / accelerator.num_processes, sums_of_batch)
        sums[batch.method].append(sums_of_batch)
    for parameter in (
        p for learner in training.learners for p in learner.loss.parameters()
    ):  # `accelerate` averages those of the student only
        own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad  # None: no supervised token
        gradient: Any = accelerator.reduce(own, reduction="mean")
        parameter.grad = gradient
    grad_norm = clip(accelerator, training.student, spec.max_grad_norm)
    learning_rate = training.schedule.get_last_lr()[0]
    training.optimizer.step()
    training.schedule.step()
    training.optimizer.zero_grad()
    training.step += 1
    for learner, sums_of_method in zip(training.learners, sums, strict=True):
        if type(learner.loss).step is not Loss.step:  # reading a number from the device waits for it
            learner.loss.step(mean_kd_loss(accelerator, sums_of_method), training.step / spec.planned_steps)
    return {"grad_norm": grad_norm, "learning_rate": learning_rate}


def choose_sequences(training: Training, batch: Batch) -> Batch:
    """Return the sequences that are trained on instead of a batch of the data, and count their tokens.

    All processes choose all of them, and each gets its rows.
    """
    accelerator = training.accelerator
    batch = batch.to(accelerator.device, non_blocking=True)
    annotators, method = batch.annotators, batch.method
    with torch.no_grad(), autocasting(training.context.student, training.autocast()), dealing():
        batch = replace(training.learners[method].rollout(batch, training.context), method=method)
    training.count_sequences(batch, annotators)
    tokens = int(batch.attention_mask.sum())
    padding = 0 if training.packed else batch.attention_mask.numel() - tokens
    training.counted.add(student_tokens=tokens, padding_tokens=padding)
    return batch.share(accelerator.process_index, accelerator.num_processes)


def count_supervised(training: Training, batches: Sequence[Batch]) -> Tensor:
    """Return the number of supervised tokens of an optimizer step, over all micro-batches and processes."""
    count = sum(int(batch.target_count) for batch in batches)
    counts: Any = training.accelerator.gather(torch.tensor(count, device=training.accelerator.device))
    return counts.sum()


def compute_loss(training: Training, batch: Batch, denominator: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a micro-batch's part of the step's loss, times the number of processes, over which gradients are averaged,
    and the sums of `head_loss` over its supervised tokens."""
    recipe, loss = training.learners[batch.method].recipe, training.learners[batch.method].loss
    with training.autocast():
        hidden = hidden_states(training.student, batch.input_ids, batch.attention_mask, training.packed)
    signal = training.teacher.signal(batch) if training.teacher is not None and loss.needs_teacher else None
    head = output_head(training.student, training.vocab_size)
    labels = Labels(batch.target, batch.sequence, None if batch.author is None else batch.author[batch.sequence])
    objective = Objective(loss, recipe.kd_ratio, recipe.temperature, recipe.scale_by_t2, training.context.progress)
    with training.autocast():
        share = denominator.double() / training.accelerator.num_processes
        return head_loss(batch.predicting(hidden), head, signal, labels, objective, share)


def cross_entropy(training: Training, batch: Batch) -> Tensor:
    """Return the student's cross-entropy on a batch, summed over its supervised tokens, nats."""
    student, objective = training.context.student, Objective(get_loss("cross_entropy"))
    head = output_head(student, training.vocab_size)
    with training.autocast():
        hidden = hidden_states(student, batch.input_ids, batch.attention_mask, training.packed)
        loss, _ = head_loss(batch.predicting(hidden), head, None, Labels(batch.target), objective, denominator=1)
    return loss


@torch.no_grad()
def validation_loss(training: Training) -> float:
    """Return the student's mean cross-entropy on the validation data, nats per token, the same in all processes."""
    total = tokens = 0.0
    with evaluating(training.context.student):
        for batch in training.validation:
            batch = batch.to(training.accelerator.device)
            total, tokens = total + float(cross_entropy(training, batch)), tokens + len(batch.target)
    return agree(lambda: total / max(tokens, 1))


def keep_if_best(training: Training) -> None:
    """Score the weights where that is due, and keep them if they are the best ones so far."""
    if training.best is not None and training.best.is_due(training.step):
        training.best.consider(training.step, validation_score(training), training.trained_state)


def validation_score(training: Training) -> float:
    """Return the score of the weights as they are, by which the best ones are chosen, and log it."""
    name = training.spec.metric_for_best_model
    score = validation_loss(training) if name is None else validation_metric(training, name)
    training.context.log_ratio(**{f"validation_{name or LOSS}": (score, 1)})
    return score


def mean_kd_loss(accelerator: Accelerator, sums: Sequence[dict[str, Tensor]]) -> float:
    """Return the mean divergence per supervised token of an optimizer step, over all processes; 0 without tokens."""
    total: Any = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    if any(sums):
        parts = [sum(part[name] for part in sums if part) for name in ("kd_loss", "tokens")]
        total = torch.stack([torch.as_tensor(part).double() for part in parts])
    total = accelerator.reduce(total, reduction="sum")
    kd_loss, tokens = total.tolist()
    return kd_loss / tokens if tokens else 0.0


def log(training: Training, metrics: MetricsFile, steps: int, logged: dict[str, Any]) -> None:
    """Write the averages of the last steps, or stop a training that has diverged.

    Raises:
        FloatingPointError: loss or gradient are not finite numbers.
    """
    averages, ratios = training.averages.take(steps), training.context.metrics
    training.context.metrics = {}
    values = {
        "loss": averages.pop("loss"),
        "grad_norm": float(logged["grad_norm"]),
        "learning_rate": logged["learning_rate"],
        **averages,
        **{name: total / count for name, (total, count) in ratios.items() if count},
        **{name: value for learner in reversed(training.learners) for name, value in learner.loss.metrics().items()},
        "num_tokens": sum_over_processes({"student_tokens": training.cost["student_tokens"]})["student_tokens"],
        "epochs": training.epochs * training.step / training.spec.planned_steps,
    }
    check_finite(values, training.step)
    if training.accelerator.is_main_process:
        metrics.append(training.step, values)
