"""Forward KL(p_T‖q_T) at a learned temperature T that raises the loss which the student lowers (CTKD).

Formula: `KL(p_T‖q_T)`, `T = low + (high - low) sigmoid(s)`; the gradient in s is multiplied by `λ = -(1 - cos(π
progress)) / 2`.

Code: zhengli97/CTKD@8ca3ce812aeb:helper/loops.py, zhengli97/CTKD@8ca3ce812aeb:train_student.py,
zhengli97/CTKD@b36678350f88:distiller_zoo/KD.py and zhengli97/CTKD@06d782567bca:scripts/run_cifar_distill.sh; how s
starts was not seen.

Agreement: tests/losses/test_curriculum_temperature.py::test_the_gradient_in_t_is_reversed_on_a_cosine, against finite
differences.

Differs: the release always multiplies by T², lets λ reach -1 after ten epochs, trains s at the student's learning rate
and adds 0.1 of cross-entropy to 0.9 of this loss; here T² is an option, λ takes the whole stage, and s has its own
learning rate.

Differs: the baseline in a copy of TAID's release, ohashi3399/TAID@12c78335af20:src/distil_losses/ctkd.py, has λ from 1
to 0: its temperature goes down the loss like the student.
"""

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from studykit.errors import InputError
from studykit.losses import Loss, LossInputs
from studykit.losses.forward_kl import forward_kl


class CurriculumTemperature(Loss):
    """Return KL(p_T‖q_T) with p_T = softmax(z_teacher / T), T learned against the student by gradient reversal.

    Prefer it when no good temperature is known. The gradient in T is multiplied by λ, which goes from 0 to -1 on a
    cosine over the stage: the task starts easy and becomes harder. Its inputs are at temperature 1.

    T = low + (high - low) sigmoid(s), where s is the learned parameter that `parameters()` returns.

    Args:
        initial: T at the start, strictly between low and high.
        low: lower bound of T, above 0.
        high: upper bound of T.
        scale_by_t2: multiply by T², so that the size of the student's gradient does not depend on T.
        learning_rate: of s; the student's is too small to change a single number within a stage.

    Raises:
        InputError: unless low < initial < high.

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
        low: Annotated[float, Field(gt=0)] = 1.0,
        high: float = 21.0,
        scale_by_t2: bool = False,
        learning_rate: Annotated[float, Field(gt=0)] = 0.01,
    ):
        if not low < initial < high:
            raise InputError(
                "loss 'curriculum_temperature': low < initial < high is needed, "
                f"received low {low}, initial {initial}, high {high}"
            )
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
        """Return s, for the optimizer; without it T is constant."""
        return [self.raw]

    def state_dict(self) -> dict[str, Any]:
        """Return s."""
        return {"raw": self.raw.detach().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore s in place, so that an optimizer that refers to it remains valid."""
        with torch.no_grad():
            self.raw.copy_(state["raw"])
