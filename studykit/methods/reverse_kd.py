"""Distillation by reverse KL on the data's own answers: the student stays where the teacher is likely.

Source: Gu et al. (2024, arXiv 2306.08543), MiniLLM, equation 1, here on fixed data; on the student's own samples it
is another method.
"""

from studykit.methods import Recipe


def reverse_kd(
    *,
    kd_ratio: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = False,
) -> Recipe:
    """Return reverse KL on fixed data, mixed with cross-entropy by `kd_ratio`.

    Args:
        kd_ratio: share of the divergence; 1 is pure distillation.
        temperature: of both sides in the divergence.
        scale_by_t2: multiply the divergence by temperature squared.
    """
    return Recipe(
        loss="reverse_kl",
        kd_ratio=kd_ratio,
        temperature=temperature,
        scale_by_t2=scale_by_t2,
    )
