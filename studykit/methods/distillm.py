"""Skew KL, with more of the student's own answers, many of them replayed, once validation gets worse (DistiLLM).

Source: Ko et al. (2024, arXiv 2402.03898), DistiLLM: Towards Streamlined Distillation for Large Language Models.
"""

from studykit.methods import Recipe


def distillm(
    *,
    loss: str = "skew_reverse_kl",
    skew: float = 0.1,
    threshold: float = 0.0,
    rise: float = 0.1,
    tolerance: float = 0.0,
    checks: int = 10,
    capacity: int = 1000,
    kd_ratio: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = False,
    sampling_temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 128,
) -> Recipe:
    """Return a skew divergence with adaptive off-policy answers; the stage names validation data.

    Args:
        loss: skew_reverse_kl or skew_forward_kl.
        skew: λ of the loss.
        threshold: φ at the start, the chance of the student's own answers.
        rise: added to φ when validation gets worse.
        tolerance: nats by which it must get worse.
        checks: how often validation is looked at.
        capacity: rows in the replay buffer.
        kd_ratio: share of the divergence; the rest is cross-entropy with the answer that is trained on.
        temperature: of both sides in the divergence.
        scale_by_t2: multiply the divergence by temperature squared.
        sampling_temperature: of the student's sampling; 0 takes the likeliest token.
        top_p: of the student's sampling: only the likeliest tokens that together reach this mass are drawn.
        max_new_tokens: most tokens of a generated answer.
    """
    return Recipe(
        loss=loss,
        loss_options={"skew": skew},
        rollout="replay",
        rollout_options={
            "threshold": threshold,
            "rise": rise,
            "tolerance": tolerance,
            "checks": checks,
            "capacity": capacity,
            "temperature": sampling_temperature,
            "top_p": top_p,
            "max_new_tokens": max_new_tokens,
        },
        kd_ratio=kd_ratio,
        temperature=temperature,
        scale_by_t2=scale_by_t2,
    )
