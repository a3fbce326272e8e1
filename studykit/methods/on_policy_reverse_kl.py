"""On-policy distillation by policy gradient: the student's own tokens, each rewarded by log p - log q alone.

Source: Lu, Thinking Machines Lab (2025), On-Policy Distillation.
"""

from studykit.methods import Recipe


def on_policy_reverse_kl(
    *,
    sampling_temperature: float = 1.0,
    max_new_tokens: int = 128,
) -> Recipe:
    """Return the policy gradient of KL(q‖p) with discount 0 on the student's own answers.

    Args:
        sampling_temperature: of the student's sampling; away from 1 the samples are no longer the student's own.
        max_new_tokens: most tokens of a generated answer.
    """
    return Recipe(
        loss="policy_gradient",
        rollout="student",
        rollout_options={"temperature": sampling_temperature, "max_new_tokens": max_new_tokens},
    )
