"""Forward KL(p_T‖q_T) at a learned temperature T that climbs the loss which the student descends (CTKD)."""

import math
from typing import Any

import torch
from torch import Tensor

from studykit.errors import InputError
from studykit.losses import Loss, LossInputs
from studykit.losses.forward_kl import forward_kl


class CurriculumTemperature(Loss):
    """Return KL(p_T‖q_T) with p_T = softmax(z_teacher / T), T learned against the student by gradient reversal.

    Prefer it when no temperature is known to be right. The gradient that reaches T is multiplied by λ, which goes from
    0 to -1 on a cosine over the stage: the task starts easy and is made harder. It wants inputs at temperature 1.

    T = low + (high - low) sigmoid(s), and s is what the optimizer must hold: `parameters()` returns it.

    Args:
        initial: T at the start, strictly between low and high.
        low: lower bound of T, above 0.
        high: upper bound of T.
        scale_by_t2: multiply by T², which keeps the student's gradient at one size as T moves.
        learning_rate: of s. The student's own would hardly move one number within a stage.

    Raises:
        InputError: unless 0 < low < initial < high.

    Source:
        Li et al. (2023), Curriculum Temperature for Knowledge Distillation.

    Example:
        >>> p, q = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.1, 0.9]])
        >>> x = LossInputs(q.log(), p.log(), torch.tensor([0]))
        >>> CurriculumTemperature(initial=2.0).per_token(x)        # √0.9 : √0.1 is 3 : 1, so ¾ log 3 - ¼ log 3
        tensor([0.5493], grad_fn=<SumBackward1>)
    """

    def __init__(
        self,
        *,
        initial: float = 2.0,
        low: float = 1.0,
        high: float = 21.0,
        scale_by_t2: bool = False,
        learning_rate: float = 0.01,
    ):
        if not 0 < low < initial < high:
            raise InputError(
                "loss 'curriculum_temperature': 0 < low < initial < high is needed, "
                f"received low {low}, initial {initial}, high {high}"
            )
        if not learning_rate > 0:
            raise InputError(f"loss 'curriculum_temperature': learning_rate must be above 0, received {learning_rate}")
        self.low, self.high, self.scale_by_t2, self.learning_rate = low, high, scale_by_t2, learning_rate
        self.raw = torch.nn.Parameter(torch.tensor(math.log((initial - low) / (high - initial))))

    @property
    def temperature(self) -> float:
        """The current T, for the log."""
        return self._temperature().item()

    def per_token(self, x: LossInputs) -> Tensor:
        """Return the forward KL at temperature T, float [N], nats; the gradient in T is reversed."""
        t = self._temperature().to(x.student_logp)
        reversal = -0.5 * (1 - math.cos(math.pi * x.progress))
        t = t.detach() + reversal * (t - t.detach())
        student_logp, teacher_logp = ((logp / t).log_softmax(dim=-1) for logp in (x.student_logp, x.teacher))
        value = forward_kl(LossInputs(student_logp, teacher_logp, x.target))
        return value * t.square() if self.scale_by_t2 else value

    def _temperature(self) -> Tensor:
        return self.low + (self.high - self.low) * self.raw.sigmoid()

    def metrics(self) -> dict[str, float]:
        """Return T."""
        return {"temperature": self.temperature}

    def parameters(self) -> list[Tensor]:
        """Return the one number behind T. Without it in the optimizer T never moves."""
        return [self.raw]

    def state_dict(self) -> dict[str, Any]:
        """Return the one number behind T."""
        return {"raw": self.raw.detach().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it in place, so that an optimizer which already holds it keeps it."""
        with torch.no_grad():
            self.raw.copy_(state["raw"])
