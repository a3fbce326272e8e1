"""Policy gradient of KL(q‖p) on sampled tokens: each is rewarded by log p - log q (MiniLLM, on-policy distillation).

Formula: `-min(ρ_t A_t, clip(ρ_t, 1-ε, 1+ε) A_t)`, `A_t = Σ_k γ^k r_{t+k}`, `r_t = log p(y_t) - log q(y_t)`, on sampled
answers.

Code: MiniLLM's, microsoft/LMOps@7b14befcfabd:minillm/minillm/losses.py and
microsoft/LMOps@19f288d4dbab:minillm/minillm/sampler.py with
microsoft/LMOps@46f17dec81ac:minillm/scripts/gpt2/minillm/train_base_xl.sh over the defaults of
microsoft/LMOps@29fe35c609dc:minillm/arguments.py.

Agreement: tests/losses/test_policy_gradient.py::test_its_mean_over_whole_answers_is_the_gradient_of_their_reverse_kl,
by enumeration of all answers.

Agreement: tests/losses/test_against_peers.py::test_the_policy_gradient_equals_that_of_trls_on_policy_distillation at
discount 0, in the gradient.

Differs: MiniLLM's release counts a token's own reward in A_t beside the one-step term; its paper and this kit begin
after it (tests/losses/test_against_releases.py::test_minillms_release_counts_a_tokens_own_reward).

Differs: in MiniLLM's release γ is 0.95, rewards are divided by 0.5, a sample is used in up to four epochs with PPO's
ratio, and the one-step term has weight 1; here γ is 1 in `minillm`, a sample is used once, and the weight is ρ_t.

Differs: MiniLLM's release whitens over padding too, and adds a loss on a plain corpus, half of it distillation.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from studykit.losses import Loss, LossInputs, log_mixture
from studykit.losses.reverse_kl import reverse_kl

LARGEST_REWARD = 100.0
"""Nats; rewards are clamped to this absolute value, since a teacher may give a token probability 0."""

SMALLEST_SPREAD = 1e-3
"""Nats; whitening divides by at least this, so that rounding is not amplified where student and teacher agree."""


class PolicyGradient(Loss):
    """Return -min(ρ A, clip(ρ, 1 - ε, 1 + ε) A), with `one_step` plus ρ KL(q‖p).

    Only its gradient has a meaning, not its value: on samples from the student it is an estimate of the gradient of
    KL(q‖p) over whole answers. Prefer it to `reverse_kl` where a token should be credited for the tokens after it.

    With r_t = log p(y_t) - log q(y_t), held constant, A_t = Σ_k discount^k r_{t+k}, from k = 0, or from k = 1 with
    `one_step`, whose KL is the exact expectation of r_t. ρ_t = q(y_t) / ((1 - α) q(y_t) + α p(y_t)) corrects for
    samples from a mixture, its denominator held constant.

    Args:
        discount: 0 rewards each token by r_t alone.
        one_step: add ρ KL(q‖p) at each position, exactly, and leave r_t out of A_t.
        length_normalised: divide A by its number of rewards; otherwise long answers are punished.
        whiten: shift and scale A to mean 0 and variance 1 over the positions of a micro-batch.
        teacher_share: α of the mixture that was sampled from.
        clip: ε; None does not clip.

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
        discount: Annotated[float, Field(ge=0, le=1)] = 0.0,
        one_step: bool = False,
        length_normalised: bool = False,
        whiten: bool = False,
        teacher_share: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        clip: Annotated[float, Field(gt=0)] | None = None,
    ):
        self.discount, self.one_step, self.length_normalised = discount, one_step, length_normalised
        self.whiten, self.teacher_share, self.clip = whiten, teacher_share, clip
        self.couples_rows = whiten or discount > 0

    def per_token(self, x: LossInputs) -> Tensor:
        """Return the surrogate at every position, float [N]; it may be negative."""
        student_logp, teacher_logp = (side.gather(1, x.target[:, None])[:, 0] for side in (x.student_logp, x.teacher))
        constant = student_logp.detach()
        reward = (teacher_logp - constant).clamp(-LARGEST_REWARD, LARGEST_REWARD)
        advantage = self._advantage(reward, x.sequence)
        ratio = (student_logp - log_mixture(constant, teacher_logp, self.teacher_share)).exp()
        gain = ratio * advantage
        if self.clip is not None:
            gain = torch.minimum(gain, ratio.clamp(1 - self.clip, 1 + self.clip) * advantage)
        return ratio.detach() * reverse_kl(x) - gain if self.one_step else -gain

    def _advantage(self, reward: Tensor, sequence: Tensor | None) -> Tensor:
        sequence = torch.zeros_like(reward, dtype=torch.long) if sequence is None else sequence
        total = discounted_sum(reward.double(), sequence, self.discount)
        if self.one_step:
            total = self.discount * next_in_sequence(total, sequence)
        total = total.to(reward.dtype)
        if self.length_normalised and self.discount > 0:
            count = discounted_sum(torch.ones_like(reward), sequence, 1.0)
            total = total / (count - 1 if self.one_step else count).clamp(min=1)
        if self.whiten:
            total = total - total.mean()
            total = total / total.square().mean().sqrt().clamp(min=SMALLEST_SPREAD)
        return total


def discounted_sum(values: Tensor, sequence: Tensor, discount: float) -> Tensor:
    """Return Σ_k discount^k values[t + k] over the positions from t to the end of its sequence, [N].

    The span that is summed doubles at each step, so that N positions take log2(N) steps and nothing is read back from
    the device.

    Args:
        values: float [N].
        sequence: int64 [N], the sequence of each position, in order.
        discount: in [0, 1].

    >>> discounted_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 1]), 0.5)
    tensor([2., 2., 4.])
    """
    span = 1
    while span < len(values) and discount > 0:
        inside = sequence[span:] == sequence[:-span]
        later = torch.where(inside, values[span:], 0)
        values = torch.cat([values[:-span] + discount**span * later, values[-span:]])
        span *= 2
    return values


def next_in_sequence(values: Tensor, sequence: Tensor) -> Tensor:
    """Return the value at the next position of the same sequence, 0 at its last one, [N].

    >>> next_in_sequence(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 1]))
    tensor([2., 0., 0.])
    """
    following = torch.zeros_like(values)
    following[:-1] = torch.where(sequence[1:] == sequence[:-1], values[1:], 0)
    return following
