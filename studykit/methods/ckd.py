"""Comparative distillation: what separates two positions for the teacher, and for the labels, for the student too.

Source: Wilf et al. (2023, arXiv 2311.02253), Comparative Knowledge Distillation.
"""

from studykit.methods import Recipe


def ckd(
    *,
    partners: int | None = 16,
    top_k: int = 16,
    clip: float = 10.0,
    teacher_weight: float = 1.0,
    label_weight: float = 1.0,
    comparison_temperature: float = 2.0,
    kd_ratio: float = 0.5,
) -> Recipe:
    """Return cross-entropy and the comparison of pairs of positions, half and half, on fixed data.

    Args:
        partners: positions that each is compared with; None means all.
        top_k: tokens of each position on which differences are looked at.
        clip: of differences, in nats.
        teacher_weight: of the teacher's differences.
        label_weight: of the labels' differences.
        comparison_temperature: τ of the softmax over differences.
        kd_ratio: share of the comparison.
    """
    return Recipe(
        loss="comparative",
        loss_options={
            "partners": partners,
            "top_k": top_k,
            "clip": clip,
            "teacher_weight": teacher_weight,
            "label_weight": label_weight,
            "temperature": comparison_temperature,
        },
        kd_ratio=kd_ratio,
    )
