"""Speculative distillation: the student drafts, the teacher corrects on the way, and both are compared there.

Source: Xu et al. (2025, arXiv 2410.11325), Speculative Knowledge Distillation: Bridging the Teacher-Student Gap
Through Interleaved Sampling.
"""

from typing import Any

from studykit.methods import Recipe


def skd(
    *,
    loss: str = "forward_kl",
    loss_options: dict[str, Any] | None = None,
    top_k: int = 25,
    draft_tokens: int = 5,
    sampling_temperature: float = 0.5,
    top_p: float = 0.5,
    teacher_sampling_temperature: float = 0.2,
    teacher_top_p: float = 0.5,
    kd_ratio: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = False,
    max_new_tokens: int = 128,
) -> Recipe:
    """Return a divergence on answers that the student drafted and the teacher corrected.

    Args:
        loss: any divergence of `studykit.losses`.
        loss_options: its options.
        top_k: a drafted token is accepted while it is among the teacher's likeliest top_k.
        draft_tokens: γ, tokens drafted before the teacher reads them.
        sampling_temperature: of the student's drafts.
        top_p: of the student's drafts.
        teacher_sampling_temperature: of the teacher's replacements.
        teacher_top_p: of the teacher's replacements.
        kd_ratio: share of the divergence; the rest is cross-entropy with the answer that is trained on.
        temperature: of both sides in the divergence.
        scale_by_t2: multiply the divergence by temperature squared.
        max_new_tokens: most tokens of a generated answer.
    """
    return Recipe(
        loss=loss,
        loss_options=loss_options or {},
        rollout="interleaved",
        rollout_options={
            "top_k": top_k,
            "draft_tokens": draft_tokens,
            "temperature": sampling_temperature,
            "top_p": top_p,
            "teacher_temperature": teacher_sampling_temperature,
            "teacher_top_p": teacher_top_p,
            "max_new_tokens": max_new_tokens,
        },
        kd_ratio=kd_ratio,
        temperature=temperature,
        scale_by_t2=scale_by_t2,
    )
