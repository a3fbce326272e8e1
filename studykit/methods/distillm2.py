"""Skew forward KL on the teacher's answer and skew reverse KL on the student's, for every prompt (DistiLLM-2).

Source: Ko et al. (2025, arXiv 2503.07067), DistiLLM-2: A Contrastive Approach Boosts the Distillation of LLMs.
"""

from studykit.methods import Recipe


def distillm2(
    *,
    skew: float = 0.1,
    teacher_sampling_temperature: float = 0.0,
    kd_ratio: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = False,
    sampling_temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 128,
) -> Recipe:
    """Return the contrastive skew divergence on both answers to every prompt: twice the rows of the batch.

    Args:
        skew: λ of both divergences.
        teacher_sampling_temperature: of the teacher, asked once per prompt; 0 takes the likeliest token.
        kd_ratio: share of the divergence; the rest is cross-entropy with the answer that is trained on.
        temperature: of both sides in the divergence.
        scale_by_t2: multiply the divergence by temperature squared.
        sampling_temperature: of the student's sampling; 0 takes the likeliest token.
        top_p: of the student's sampling: only the likeliest tokens that together reach this mass are drawn.
        max_new_tokens: most tokens of a generated answer.
    """
    return Recipe(
        loss="contrastive_skew",
        loss_options={"skew": skew},
        rollout="teacher_and_student",
        rollout_options={
            "temperature": sampling_temperature,
            "top_p": top_p,
            "teacher_temperature": teacher_sampling_temperature,
            "max_new_tokens": max_new_tokens,
        },
        kd_ratio=kd_ratio,
        temperature=temperature,
        scale_by_t2=scale_by_t2,
    )
