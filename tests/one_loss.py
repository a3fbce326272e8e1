"""The head on plain tensors, with its settings as keywords: what the tests of several rooms call."""

from typing import Any

from torch import Tensor

from studykit.head import Chunking, Labels, Objective, OutputHead, head_loss
from studykit.losses import Loss
from studykit.teacher import TeacherSignal


def loss_and_sums(
    parts: tuple[Tensor, Tensor, Tensor | None],
    signal: TeacherSignal | None,
    target: Tensor,
    loss: Loss,
    denominator: float | Tensor,
    **settings: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what `head_loss` returns.

    Args:
        parts: hidden states, and weight and bias of the head.
        signal: of the teacher.
        target: labels.
        loss: from `get_loss`.
        denominator: divides the sum.
        settings: fields of `OutputHead`, `Labels`, `Objective` and `Chunking`, by name.
    """

    def fields(kind: Any) -> dict[str, Any]:
        return {name: settings.pop(name) for name in kind.__dataclass_fields__ if name in settings}

    hidden, weight, bias = parts
    head, labels = OutputHead(weight, bias, **fields(OutputHead)), Labels(target, **fields(Labels))
    objective, chunking = Objective(loss, **fields(Objective)), Chunking(**fields(Chunking))
    assert not settings
    return head_loss(hidden, head, signal, labels, objective, denominator, chunking)
