"""Fine-tuning on those of the budget's examples that the teacher prefers to a small reference model (MiniPLM).

Source: Gu et al. (2025), MiniPLM: Knowledge Distillation for Pre-Training Language Models.
"""

from studykit.errors import InputError
from studykit.methods import Recipe


def miniplm(
    *,
    reference: str | None = None,
    share: float = 0.5,
) -> Recipe:
    """Return cross-entropy on the best share of the budget's examples, in their original order.

    Args:
        reference: a small model trained on data disjoint from the budget's.
        share: of the examples that is kept.

    Raises:
        InputError: no reference was named.
    """
    if reference is None:
        raise InputError(
            "method 'miniplm' needs a reference: name a small model that has not seen the budget's data, such as "
            "method_options={'reference': 'lexicon/reference'}"
        )
    return Recipe(loss="cross_entropy", choose="difference", choose_options={"reference": reference, "share": share})
