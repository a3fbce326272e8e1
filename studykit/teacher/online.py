"""The live teacher: one forward pass per batch, in evaluation mode, without gradients."""

import torch
from torch import nn

from studykit.models import hidden_states, output_head
from studykit.teacher import Batch
from studykit.teacher.signal import TeacherSignal


class OnlineTeacher:
    """A model that answers every batch with its full distribution; only its hidden states are kept.

    Args:
        model: in evaluation mode, without gradients.
        vocabulary: rows that student and teacher share.
    """

    def __init__(self, model: nn.Module, vocabulary: int):
        self.model = model
        self.head = output_head(model)
        self.vocabulary = min(vocabulary, self.head.weight.shape[0])
        self.cost: dict[str, float] = {"teacher_tokens": 0}

    def prepare(self, batches: list[Batch]) -> None:
        """Nothing to do: a live teacher answers when asked."""

    @torch.no_grad()
    def signal(self, batch: Batch) -> TeacherSignal:
        """Run the teacher over a batch."""
        self.cost["teacher_tokens"] += int(batch.attention_mask.sum())
        place = self.head.weight.device
        hidden = hidden_states(self.model, batch.input_ids.to(place), batch.attention_mask.to(place))
        chosen = hidden[:, :-1][batch.supervised[:, 1:].to(place)]
        return TeacherSignal.from_hidden(
            chosen, self.head.weight, self.head.bias, logit_scale=self.head.logit_scale, softcap=self.head.softcap
        )
