"""TAID -Σ p_t log q, p_t = softmax((1-t) z_student + t z_teacher): a target that moves from student to teacher.

Formula: `-Σ p_t log q`, `p_t = softmax((1-t) sg(z_student) + t z_teacher)`; `m ← β m + (1-β) (L_before - L) /
L_before`, `t ← min(t_end, max(t_linear, t + α sigmoid(m) (1-t)))`.

Code: SakanaAI/TAID@a0628922c161:README.md; the loss was seen in a copy,
Rumia-Channel/TAID@5699a2a1654c:src/distil_losses/taid.py.

Agreement: tests/losses/test_taid.py::test_t_follows_the_recurrence_for_twenty_steps and
tests/losses/test_taid.py::test_the_gradient_is_student_minus_interpolated_target, with the same recurrence and defaults
as the copy when `alpha` is 5e-4.

Differs: `alpha` is 6 / steps by default; with 5e-4 t equals t_linear in runs under about 4,000 steps.

Differs: the copy moves t whenever the loss is computed, before the step is counted; here once per optimizer step, by
its mean loss, with the step counted.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from studykit.errors import InputError
from studykit.losses import Loss, LossInputs, expectation

AUTO_ALPHA = 6.0
"""`alpha="auto"` is 6 / total steps: at momentum 0 the gap 1 - t then shrinks by e³ over a run of any length."""


class Taid(Loss):
    """Return -Σ p_t log q with p_t = softmax((1-t) sg(z_student) + t z_teacher), in logit space, and t rising to 1.

    Prefer it when the teacher is far stronger than the student. Its value is a cross-entropy, not a divergence: at
    q = p it is the entropy of p, with gradient 0. At every optimizer step but the first, with L the mean loss and
    t_linear the linear schedule from t_start to t_end,

        m ← beta m + (1 - beta) (L_before - L) / L_before
        t ← min(t_end, max(t_linear, t + alpha sigmoid(m) (1 - t)))

    Args:
        schedule: "adaptive" as above, "linear" for t = t_linear, or "fixed" for t = t_start.
        t_start: first t, in [0, 1].
        t_end: last t, in [t_start, 1].
        alpha: step size of the adaptive schedule; "auto" scales it to the length of the run. The authors' 5e-4 never
            rises above t_linear in runs of fewer than about 4,000 steps.
        beta: decay of the momentum m, in [0, 1).

    Attributes:
        t: the current weight of the teacher, logged.
        at_floor: whether t equals t_linear, where the adaptive schedule is no different from the linear one.

    Raises:
        InputError: t_start above t_end.

    Source:
        Shing et al. (2025), TAID: Temporally Adaptive Interpolated Distillation for Efficient Knowledge Transfer in
        Language Models, section 3 and algorithm 1.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> x = LossInputs(q.log(), p.log(), torch.tensor([0]))
        >>> Taid(schedule="fixed", t_start=1.0).per_token(x)               # ½ log 4 + ½ log 1⅓
        tensor([0.8370])
    """

    closed_form = True

    def __init__(
        self,
        *,
        schedule: Literal["adaptive", "linear", "fixed"] = "adaptive",
        t_start: Annotated[float, Field(ge=0, le=1)] = 0.4,
        t_end: Annotated[float, Field(ge=0, le=1)] = 1.0,
        alpha: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto",
        beta: Annotated[float, Field(ge=0, lt=1)] = 0.99,
    ):
        if t_start > t_end:
            raise InputError(f"loss 'taid': t_start <= t_end is needed, received {t_start} and {t_end}")
        self.schedule, self.t_start, self.t_end, self.alpha, self.beta = schedule, t_start, t_end, alpha, beta
        self.t = t_start
        self.momentum = 0.0
        self.previous_loss: float | None = None
        self.progress = 0.0

    def per_token(self, x: LossInputs) -> Tensor:
        """Return the cross-entropy of the student under the interpolated target at the current t, float [N], nats."""
        # Log-probabilities are logits up to a constant per row, which the softmax cancels.
        mixed = (1 - self.t) * x.student_logp.detach() + self.t * x.teacher
        return -expectation(mixed.log_softmax(dim=-1), x.student_logp)

    def value_and_grad(self, x: LossInputs) -> tuple[Tensor, Tensor]:
        """Return the loss [N] and its derivative in log q [N, C], -p_t."""
        mixed = x.student_logp.detach().lerp(x.teacher, self.t).softmax(dim=-1)
        return -(mixed * x.student_logp).sum(dim=-1), mixed.neg_()

    def step(self, mean_loss: float, progress: float) -> None:
        """Update t, once per optimizer step.

        Args:
            mean_loss: this loss (the cross-entropy form) averaged over all tokens of the step, the same on all ranks.
            progress: share of the optimizer steps done, this one included; its increase is 1 / total steps.
        """
        before, share_of_run = self.previous_loss, progress - self.progress
        self.previous_loss, self.progress = mean_loss, progress
        if self.schedule == "linear":
            self.t = self._linear()
        if self.schedule != "adaptive" or before is None:
            return
        alpha = AUTO_ALPHA * share_of_run if self.alpha == "auto" else float(self.alpha)
        self.momentum = self.beta * self.momentum + (1 - self.beta) * (before - mean_loss) / (before + 1e-15)
        sigmoid = 0.5 * (1 + math.tanh(self.momentum / 2))  # 1 / (1 + exp(-m)) overflows where the loss was 0
        self.t = min(self.t_end, max(self._linear(), self.t + alpha * sigmoid * (1 - self.t)))

    @property
    def at_floor(self) -> bool:
        """Whether t is at the lower bound, the linear schedule."""
        return self.t <= self._linear()

    def metrics(self) -> dict[str, float]:
        """Return t, and 1 where it is at its lower bound, the linear schedule."""
        return {"taid_t": self.t, "taid_at_floor": float(self.at_floor)}

    def _linear(self) -> float:
        return self.t_start + (self.t_end - self.t_start) * self.progress

    def state_dict(self) -> dict[str, Any]:
        """Return t, the momentum, the last loss and the share of the steps done."""
        return {
            "t": self.t,
            "momentum": self.momentum,
            "previous_loss": self.previous_loss,
            "progress": self.progress,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, so that a resumed run continues with the same t."""
        self.t, self.momentum = state["t"], state["momentum"]
        self.previous_loss, self.progress = state["previous_loss"], state["progress"]
