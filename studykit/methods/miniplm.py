"""Fine-tuning on those of the budget's examples that the teacher prefers to a small reference model (MiniPLM).

Source: Gu et al. (2025, arXiv 2410.17215), MiniPLM: Knowledge Distillation for Pre-Training Language Models.
"""

from studykit.errors import InputError
from studykit.methods import Recipe


def miniplm(
    *,
    reference: str | None = None,
    share: float = 0.5,
    choose: str = "difference",
) -> Recipe:
    """Return cross-entropy on the best share of the budget's examples, in their original order.

    Args:
        reference: a small model trained on data disjoint from the budget's.
        share: of the examples that is kept.
        choose: the sampler that chooses; its controls are teacher_nll, reference_nll, length_matched and uniform.

    Raises:
        InputError: no reference was named.
    """
    if reference is None:
        raise InputError(
            "method 'miniplm' needs a reference: name a small model that has not seen the budget's data, such as "
            "method_options={'reference': 'lexicon/reference'}"
        )
    return Recipe(loss="cross_entropy", choose=choose, choose_share=share, choose_reference=reference)
