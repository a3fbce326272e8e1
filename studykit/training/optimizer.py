"""AdamW and its learning-rate schedule, as the Trainer of transformers sets them up."""

from collections.abc import Sequence

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from studykit.losses import Loss
from studykit.spec import Stage

_NOT_DECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
"""Names of parameters without weight decay: biases, and the scales of normalisations."""


def make_optimizer(student: nn.Module, losses: Sequence[Loss], stage: Stage) -> AdamW:
    """Return AdamW over what is trained of the student, and over what the losses learn."""
    from transformers.trainer_pt_utils import get_parameter_names

    decayed = set(get_parameter_names(student, [nn.LayerNorm], _NOT_DECAYED))
    trained = [(name, p) for name, p in student.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in trained if name in decayed], "weight_decay": stage.weight_decay},
        {"params": [p for name, p in trained if name not in decayed], "weight_decay": 0.0},
    ]
    for loss in (loss for loss in losses if loss.parameters()):
        learning_rate = loss.learning_rate or stage.learning_rate
        groups.append({"params": loss.parameters(), "weight_decay": 0.0, "lr": learning_rate})
    return stage.apply_to("optimizer", AdamW(groups, fused=True, **stage.passed_to("AdamW")))


def make_schedule(optimizer: Optimizer, stage: Stage) -> LRScheduler:
    """Return the learning rate's schedule: one step per optimizer step."""
    from transformers import get_scheduler

    return get_scheduler(
        optimizer=optimizer,
        num_warmup_steps=round(stage.warmup_ratio * stage.planned_steps),
        num_training_steps=stage.planned_steps,
        **stage.passed_to("get_scheduler"),
    )
