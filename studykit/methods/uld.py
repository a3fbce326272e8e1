"""Universal logit distillation: a teacher with another tokenizer, compared by its sorted probabilities.

Source: Boizard, El Haddad, Hudelot, Colombo (2024, arXiv 2402.12030), Towards Cross-Tokenizer Distillation: the
Universal Logit Distillation Loss for LLMs.
"""

from studykit.methods import Recipe


def uld(
    *,
    weight: float = 1.5,
) -> Recipe:
    """Return cross-entropy and the distance of sorted probabilities on fixed data.

    Args:
        weight: of the distance.
    """
    return Recipe(loss="sorted_l1", loss_options={"weight": weight})
