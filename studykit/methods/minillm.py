"""Policy gradient of KL(q‖p) over whole answers, sampled from a mixture of student and teacher (MiniLLM).

The one-step term is KL(q‖p) in full, and the policy gradient accounts for the tokens after it. Samples come from the
mixture that the importance weights assume, hence at temperature 1.

Formula: the gradient of `KL(q‖p)` of whole answers: `ρ_t KL(q_t‖p_t)` at each token, plus the policy gradient of the
mean reward of the tokens after it; samples from `0.2 p + 0.8 q`, with `ρ_t = q / (0.2 p + 0.8 q)`.

Source: Gu et al. (2024, arXiv 2306.08543), MiniLLM: Knowledge Distillation of Large Language Models.
"""

from studykit.methods import Recipe

minillm = Recipe(
    loss="policy_gradient",
    loss_options={
        "discount": 1.0,
        "one_step": True,
        "length_normalised": True,
        "whiten": True,
        "teacher_share": 0.2,
        "clip": 0.2,
    },
    rollout="student",
    rollout_options={"teacher_share": 0.2},
    settable=(),
    hidden=("one_step", "length_normalised", "sampling_temperature", "top_p"),
)
