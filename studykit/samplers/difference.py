"""Examples that the teacher finds much likelier than a small reference model does (MiniPLM)."""

from collections.abc import Sequence

import numpy as np

from studykit.models.names import ModelRef
from studykit.samplers._by_likelihood import best_share_first, likelihood
from studykit.sources import Example


def rank(
    pool: Sequence[Example],
    generator: np.random.Generator,
    *,
    teacher: ModelRef | None = None,
    reference: ModelRef | None = None,
    share: float = 0.5,
) -> np.ndarray:
    """Return a permutation whose first `share` is kept, in random order, int64 [len(pool)].

    What both models find easy, and what neither can make sense of, comes last. Nothing but text passes from teacher to
    student, so that tokenizers may differ and training costs no more than fine-tuning.


    Args:
        pool: all examples.
        generator: orders what is kept, and the rest.
        teacher: the larger model; it may have another tokenizer.
        reference: a small model, trained on a slice of data that is disjoint from the pool.
        share: of the pool that is kept, in (0, 1].

    Raises:
        InputError: a model that is not named or not there, or a share out of range.

    Source:
        Gu et al. (2025), MiniPLM: Knowledge Distillation for Pre-Training Language Models, carried over from chunks of
        a corpus to the response tokens of examples.
    """
    return best_share_first(difference(pool, teacher, reference), share, generator)


def difference(pool: Sequence[Example], teacher: ModelRef | None, reference: ModelRef | None) -> np.ndarray:
    """Return mean log p_teacher - mean log p_reference over the response tokens of each example, float64 [n]."""
    models = {"teacher": teacher, "reference": reference}
    ours, theirs = (likelihood(pool, model, role) for role, model in models.items())
    return ours - theirs
