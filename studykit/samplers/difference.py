"""Examples that the teacher finds much likelier than a small reference model does (MiniPLM).

Formula: `log p_teacher(x) - log p_reference(x)`, per token; the examples with the largest are kept.

Code: thu-coai/MiniPLM was not seen; a copy was:
lisihang1401443109/MiniPLM@02a6f851aa0a:scripts/miniplm/difference_sampling/compute_difference_scores.py and
lisihang1401443109/MiniPLM@02a6f851aa0a:scripts/miniplm/difference_sampling/construct_pretrain_data.py.

Agreement: tests/samplers/test_by_likelihood.py::test_what_is_kept_is_the_best_share_of_a_sort_by_hand and
tests/samplers/test_by_likelihood.py::test_miniplm_keeps_the_top_share_of_its_budget_in_their_order.

Differs: scores are of the answer's tokens instead of chunks of a corpus, and the examples are fine-tuned on instead of
pre-trained on. In both the kept ones stay in their order.
"""

from collections.abc import Sequence

import numpy as np

from studykit.samplers._shares import Share, best_share_first
from studykit.sources import Example

MODELS = ("teacher", "reference")


def difference(
    pool: Sequence[Example],
    generator: np.random.Generator,
    teacher_logp: np.ndarray,
    reference_logp: np.ndarray,
    *,
    share: Share = 0.5,
) -> np.ndarray:
    """Return a permutation that starts with the share of the largest mean log p_teacher - mean log p_reference.

    What both models find easy, and what neither can make sense of, comes last. Nothing but text passes from teacher to
    student, so that tokenizers may differ and training costs no more than fine-tuning. The reference is trained on a
    slice of data that is disjoint from the pool.

    Source:
        Gu et al. (2025), MiniPLM: Knowledge Distillation for Pre-Training Language Models, carried over from chunks of
        a corpus to the response tokens of examples.
    """
    return best_share_first(teacher_logp - reference_logp, share, generator)
