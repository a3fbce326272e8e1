"""On-policy distillation by policy gradient: each of the student's tokens is rewarded by log p - log q alone.

At a `sampling_temperature` other than 1 the samples are no longer the student's, and the gradient is biased.

Formula: `-ρ_t sg(log p(y_t) - log q(y_t))`, `ρ_t = q(y_t) / sg(q(y_t))`, y sampled from the student.

Code: thinking-machines-lab/tinker-cookbook@53aaf8de3a68:tinker_cookbook/distillation/train_on_policy.py: coefficient 1,
discount 0, loss `importance_sampling`.

Differs: the release may take several optimizer steps on a batch (`num_substeps`), so that its ratio leaves 1; here
every step samples anew.

Differs: the release adds rewards of an environment to the advantage where it has some; here there are none.

Source: Lu, Thinking Machines Lab (2025), On-Policy Distillation.
"""

from studykit.methods import Recipe

on_policy_reverse_kl = Recipe(
    loss="policy_gradient",
    rollout="student",
    settable=(),
    hidden=("discount", "one_step", "length_normalised", "whiten", "teacher_share", "clip", "top_p"),
)
