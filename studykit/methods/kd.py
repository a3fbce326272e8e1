"""Knowledge distillation on the data's own answers: a divergence from the teacher at every supervised token.

Source: Hinton, Vinyals, Dean (2015, arXiv 1503.02531), Distilling the Knowledge in a Neural Network.
"""

from typing import Any

from studykit.methods import Recipe


def kd(
    *,
    loss: str = "forward_kl",
    loss_options: dict[str, Any] | None = None,
    kd_ratio: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = False,
) -> Recipe:
    """Return (1 - kd_ratio) * cross-entropy + kd_ratio * divergence on fixed data.

    Args:
        loss: any divergence of `studykit.losses`.
        loss_options: its options, such as `{"beta": 0.1}` for `jsd`.
        kd_ratio: 1 is pure distillation.
        temperature: of both sides in the divergence; cross-entropy stays at 1.
        scale_by_t2: multiply the divergence by temperature squared, which keeps its gradient's size.
    """
    return Recipe(
        loss=loss,
        loss_options=loss_options or {},
        kd_ratio=kd_ratio,
        temperature=temperature,
        scale_by_t2=scale_by_t2,
    )
