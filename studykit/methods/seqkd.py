"""Sequence-level distillation: fine-tuning on the teacher's answers instead of the data's.

Source: Kim, Rush (2016, arXiv 1606.07947), Sequence-Level Knowledge Distillation.
"""

from studykit.methods import Recipe


def seqkd(
    *,
    sampling_temperature: float = 0.0,
    top_p: float = 1.0,
    max_new_tokens: int = 128,
) -> Recipe:
    """Return cross-entropy on answers that the teacher has written, asked for once per prompt.

    Args:
        sampling_temperature: of the teacher's sampling; 0 takes the likeliest token at every place.
        top_p: of the teacher's sampling: only the likeliest tokens that together reach this mass are drawn.
        max_new_tokens: most tokens of a generated answer.
    """
    return Recipe(
        loss="cross_entropy",
        rollout="teacher",
        rollout_options={
            "temperature": sampling_temperature,
            "top_p": top_p,
            "max_new_tokens": max_new_tokens,
        },
    )
