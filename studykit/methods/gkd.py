"""Generalised distillation: a Jensen-Shannon divergence, partly on the student's own answers.

Source: Agarwal et al. (2024, arXiv 2306.13649), On-Policy Distillation of Language Models: Learning from Self-
Generated Mistakes.
"""

from studykit.methods import Recipe


def gkd(
    *,
    lmbda: float = 0.5,
    beta: float = 0.5,
    kd_ratio: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = False,
    sampling_temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 128,
) -> Recipe:
    """Return `jsd(beta)` on the student's own answers with probability `lmbda`, else on the data's.

    Args:
        lmbda: share of micro-batches that the student answers itself; 0 is fixed data, 1 purely on-policy.
        beta: of the divergence; 0 is the forward KL, 1 the reverse KL.
        kd_ratio: share of the divergence; the rest is cross-entropy with the answer that is trained on.
        temperature: of both sides in the divergence.
        scale_by_t2: multiply the divergence by temperature squared.
        sampling_temperature: of the student's sampling; 0 takes the likeliest token.
        top_p: of the student's sampling: only the likeliest tokens that together reach this mass are drawn.
        max_new_tokens: most tokens of a generated answer.
    """
    return Recipe(
        loss="jsd",
        loss_options={"beta": beta},
        rollout="mixed",
        rollout_options={
            "lmbda": lmbda,
            "temperature": sampling_temperature,
            "top_p": top_p,
            "max_new_tokens": max_new_tokens,
        },
        kd_ratio=kd_ratio,
        temperature=temperature,
        scale_by_t2=scale_by_t2,
    )
