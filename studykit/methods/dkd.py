"""Decoupled distillation on the data's own answers: the label's share and the other classes weighed apart.

Source: Zhao et al. (2022, arXiv 2203.08679), Decoupled Knowledge Distillation, equation 7.
"""

from studykit.methods import Recipe


def dkd(
    *,
    alpha: float = 1.0,
    beta: float = 0.5,
    kd_ratio: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = False,
) -> Recipe:
    """Return decoupled distillation on fixed data, mixed with cross-entropy by `kd_ratio`.

    Args:
        alpha: weight of the label's share.
        beta: weight of the classes other than the label.
        kd_ratio: share of the divergence; 1 is pure distillation.
        temperature: of both sides in the divergence.
        scale_by_t2: multiply the divergence by temperature squared.
    """
    return Recipe(
        loss="decoupled_kl",
        loss_options={"alpha": alpha, "beta": beta},
        kd_ratio=kd_ratio,
        temperature=temperature,
        scale_by_t2=scale_by_t2,
    )
