"""α-β divergence on the data's own answers: tunes how hard errors and how much confidence are punished.

Source: Wang et al. (2025, arXiv 2505.04560), ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge
Distillation.
"""

from studykit.methods import Recipe


def abkd(
    *,
    alpha: float = 0.2,
    beta: float = 0.7,
    kd_ratio: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = False,
) -> Recipe:
    """Return the α-β divergence on fixed data, mixed with cross-entropy by `kd_ratio`.

    Args:
        alpha: weight of the mass where the teacher is high.
        beta: weight of the mass where the student is high.
        kd_ratio: share of the divergence; 1 is pure distillation.
        temperature: of both sides in the divergence.
        scale_by_t2: multiply the divergence by temperature squared.
    """
    return Recipe(
        loss="alpha_beta",
        loss_options={"alpha": alpha, "beta": beta},
        kd_ratio=kd_ratio,
        temperature=temperature,
        scale_by_t2=scale_by_t2,
    )
