"""TAID on the data's own answers: the target walks from the student's own distribution to the teacher's.

Source: Shing et al. (2025, arXiv 2501.16937), TAID: Temporally Adaptive Interpolated Distillation, algorithm 1.
"""

from studykit.methods import Recipe


def taid(
    *,
    schedule: str = "adaptive",
    t_start: float = 0.4,
    t_end: float = 1.0,
    alpha: float | str = "auto",
    beta: float = 0.99,
    kd_ratio: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = False,
) -> Recipe:
    """Return TAID on fixed data, mixed with cross-entropy by `kd_ratio`.

    Args:
        schedule: adaptive, linear or fixed.
        t_start: first share of the teacher.
        t_end: last share of the teacher.
        alpha: step size of the adaptive schedule; auto scales it to the length of the stage.
        beta: decay of the momentum.
        kd_ratio: share of the divergence; 1 is pure distillation.
        temperature: of both sides in the divergence.
        scale_by_t2: multiply the divergence by temperature squared.
    """
    return Recipe(
        loss="taid",
        loss_options={"schedule": schedule, "t_start": t_start, "t_end": t_end, "alpha": alpha, "beta": beta},
        kd_ratio=kd_ratio,
        temperature=temperature,
        scale_by_t2=scale_by_t2,
    )
