"""Curriculum temperature: the temperature of the divergence is learned against the student, from easy to hard.

Source: Li et al. (2023, arXiv 2211.16231), Curriculum Temperature for Knowledge Distillation.
"""

from studykit.methods import Recipe


def ctkd(
    *,
    initial: float = 2.0,
    low: float = 1.0,
    high: float = 21.0,
    temperature_learning_rate: float = 0.01,
    scale_by_t2: bool = False,
    kd_ratio: float = 1.0,
) -> Recipe:
    """Return the forward KL at a learned temperature on fixed data.

    Args:
        initial: temperature at the start.
        low: lower bound of it.
        high: upper bound of it.
        temperature_learning_rate: of the number behind it.
        scale_by_t2: multiply the divergence by the learned temperature squared.
        kd_ratio: share of the divergence; the rest is cross-entropy with the answer that is trained on.
    """
    return Recipe(
        loss="curriculum_temperature",
        loss_options={
            "initial": initial,
            "low": low,
            "high": high,
            "scale_by_t2": scale_by_t2,
            "learning_rate": temperature_learning_rate,
        },
        kd_ratio=kd_ratio,
    )
