"""Policy gradient of KL(q‖p) on sampled tokens: each is rewarded by log p - log q (MiniLLM, on-policy distillation)."""

import torch
from torch import Tensor

from studykit.errors import InputError
from studykit.losses import Loss, LossInputs, log_mixture
from studykit.losses.reverse_kl import reverse_kl

LARGEST_REWARD = 100.0
"""Nats; rewards are held within ± so much, since a teacher may find a token impossible."""

SMALLEST_SPREAD = 1e-3
"""Nats; whitening does not blow up what is smaller, such as rounding where student and teacher agree."""


class PolicyGradient(Loss):
    """Return -min(ρ A, clip(ρ, 1 - ε, 1 + ε) A), plus the weighted one-step KL(q‖p) where it is asked for.

    The value has no meaning of its own, its gradient has: on samples from the student it is an estimate of the
    gradient of KL(q‖p) over whole answers. Prefer it to `reverse_kl` where a token should answer for what follows it.

    With r_t = log p(y_t) - log q(y_t), held constant, A_t = Σ_k discount^k r_{t+k}, from k = 0, or from k = 1 where
    the one-step term already answers for the token itself. ρ_t = q(y_t) / ((1 - α) q(y_t) + α p(y_t)) corrects for
    samples from a mixture, its denominator held constant.

    Args:
        discount: 0 looks at the token's own reward alone.
        one_step: add ρ KL(q‖p) at the token's own place, exactly, and leave its own reward out of A.
        length_normalised: divide A by the number of rewards in it, or long answers are punished.
        whiten: shift and scale A to mean 0 and variance 1 over the positions that are seen together, a micro-batch.
        teacher_share: α of the mixture that was sampled from.
        clip: ε; None does not clip.

    Raises:
        InputError: an option out of range.

    Source:
        Gu et al. (2024), MiniLLM: Knowledge Distillation of Large Language Models, section 2.2; with discount 0 the
        on-policy distillation of Lu, Thinking Machines Lab (2025).

    Example:
        >>> p, q = torch.tensor([[0.5, 0.5], [0.8, 0.2]]), torch.tensor([[0.25, 0.75], [0.4, 0.6]])
        >>> x = LossInputs(q.log(), p.log(), torch.tensor([0, 0]))
        >>> PolicyGradient().per_token(x)                               # both: log 2
        tensor([-0.6931, -0.6931])
    """

    def __init__(
        self,
        *,
        discount: float = 0.0,
        one_step: bool = False,
        length_normalised: bool = False,
        whiten: bool = False,
        teacher_share: float = 0.0,
        clip: float | None = None,
    ):
        if not 0 <= discount <= 1 or not 0 <= teacher_share < 1 or (clip is not None and not clip > 0):
            raise InputError(
                "loss 'policy_gradient': discount must lie in [0, 1], teacher_share in [0, 1) and clip above 0, "
                f"received {discount}, {teacher_share} and {clip}"
            )
        self.discount, self.one_step, self.length_normalised = discount, one_step, length_normalised
        self.whiten, self.teacher_share, self.clip = whiten, teacher_share, clip
        self.couples_rows = whiten or discount > 0

    def per_token(self, x: LossInputs) -> Tensor:
        """Return the surrogate at every position, float [N]; it may be negative."""
        ours, theirs = (side.gather(1, x.target[:, None])[:, 0] for side in (x.student_logp, x.teacher))
        held = ours.detach()
        reward = (theirs - held).clamp(-LARGEST_REWARD, LARGEST_REWARD)
        advantage = self._advantage(reward, x.sequence)
        ratio = (ours - log_mixture(held, theirs, self.teacher_share)).exp()
        gain = ratio * advantage
        if self.clip is not None:
            gain = torch.minimum(gain, ratio.clamp(1 - self.clip, 1 + self.clip) * advantage)
        return ratio.detach() * reverse_kl(x) - gain if self.one_step else -gain

    def _advantage(self, reward: Tensor, sequence: Tensor | None) -> Tensor:
        """Return what follows each token of a sequence, discounted, float [N]."""
        rows = [0] * len(reward) if sequence is None else sequence.tolist()
        totals, counts = [0.0] * len(rows), [0] * len(rows)
        after, many = 0.0, 0
        for t, own in reversed(list(enumerate(reward.tolist()))):
            if t + 1 == len(rows) or rows[t] != rows[t + 1]:
                after, many = 0.0, 0
            with_own = own + self.discount * after
            totals[t], counts[t] = (self.discount * after, many) if self.one_step else (with_own, many + 1)
            after, many = with_own, many + 1 if self.discount > 0 else 0
        total, count = reward.new_tensor(totals), reward.new_tensor(counts)
        if self.length_normalised:
            total = total / count.clamp(min=1)
        if self.whiten:
            total = total - total.mean()
            total = total / total.square().mean().sqrt().clamp(min=SMALLEST_SPREAD)
        return total
