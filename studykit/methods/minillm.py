"""Policy gradient of KL(q‖p) over whole answers, sampled from a mixture of student and teacher (MiniLLM).

Source: Gu et al. (2024, arXiv 2306.08543), MiniLLM: Knowledge Distillation of Large Language Models.
"""

from studykit.methods import Recipe


def minillm(
    *,
    teacher_share: float = 0.2,
    discount: float = 1.0,
    clip: float = 0.2,
    whiten: bool = True,
    max_new_tokens: int = 128,
) -> Recipe:
    """Return the exact one-step KL(q‖p) and the policy gradient of what follows, on teacher-mixed samples.

    Args:
        teacher_share: α of (1 - α) q + α p, which answers are sampled from.
        discount: of later rewards.
        clip: ε of the importance weights.
        whiten: shift and scale the advantages to mean 0 and variance 1.
        max_new_tokens: most tokens of a generated answer.
    """
    return Recipe(
        loss="policy_gradient",
        loss_options={
            "discount": discount,
            "one_step": True,
            "length_normalised": True,
            "whiten": whiten,
            "teacher_share": teacher_share,
            "clip": clip,
        },
        rollout="student",
        rollout_options={"teacher_share": teacher_share, "max_new_tokens": max_new_tokens},
    )
