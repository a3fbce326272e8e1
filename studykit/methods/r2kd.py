"""Correlation distance beside cross-entropy, from a pruned teacher, behind prompts with tokens left out (R2KD).

Source: Kim, Ham, Cho, Kim (2024, arXiv 2311.13934), Robustness-Reinforced Knowledge Distillation with Correlation
Distance and Network Pruning.
"""

from studykit.methods import Recipe


def r2kd(
    *,
    pruned: float = 0.2,
    prompt_dropout: float = 0.1,
    top_k: int = 32,
    value_weight: float = 1.0,
    rank_weight: float = 1.0,
    softness: float = 1.0,
    kd_ratio: float = 0.5,
    temperature: float = 2.0,
    scale_by_t2: bool = False,
) -> Recipe:
    """Return cross-entropy and correlation distance, half and half, with a pruned teacher and augmented prompts.

    Args:
        pruned: share of the teacher's smallest weights that are masked out.
        prompt_dropout: chance of each prompt token to be left out; 0 trains on the data as it is.
        top_k: tokens on which teacher and student are correlated.
        value_weight: of 1 - Pearson.
        rank_weight: of 1 - Spearman.
        softness: of the ranks, in nats.
        kd_ratio: share of the correlation distance.
        temperature: of both sides in it.
        scale_by_t2: multiply it by temperature squared.
    """
    return Recipe(
        loss="correlation",
        loss_options={
            "top_k": top_k,
            "value_weight": value_weight,
            "rank_weight": rank_weight,
            "softness": softness,
        },
        rollout="prompt_dropout" if prompt_dropout else "dataset",
        rollout_options={"prompt_dropout": prompt_dropout} if prompt_dropout else {},
        kd_ratio=kd_ratio,
        temperature=temperature,
        scale_by_t2=scale_by_t2,
        teacher_pruned=pruned,
    )
