"""Adaptive KL on the data's own answers: forward or reverse KL weighted by where student and teacher differ.

Source: Wu et al. (2024, arXiv 2404.02657), Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large
Language Models.
"""

from studykit.methods import Recipe


def akl(
    *,
    mu: float = 0.5,
    kd_ratio: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = False,
) -> Recipe:
    """Return adaptive KL on fixed data, mixed with cross-entropy by `kd_ratio`.

    Args:
        mu: mass of the teacher's head, in (0, 1].
        kd_ratio: share of the divergence; 1 is pure distillation.
        temperature: of both sides in the divergence.
        scale_by_t2: multiply the divergence by temperature squared.
    """
    return Recipe(
        loss="adaptive_kl",
        loss_options={"mu": mu},
        kd_ratio=kd_ratio,
        temperature=temperature,
        scale_by_t2=scale_by_t2,
    )
