"""On-policy distillation by policy gradient: each of the student's tokens is rewarded by log p - log q alone.

At a `sampling_temperature` other than 1 the samples are no longer the student's, and the gradient is biased.

Source: Lu, Thinking Machines Lab (2025), On-Policy Distillation.
"""

from studykit.methods import Recipe

on_policy_reverse_kl = Recipe(
    loss="policy_gradient",
    rollout="student",
    settable=(),
    hidden=("discount", "one_step", "length_normalised", "whiten", "teacher_share", "clip", "top_p"),
)
