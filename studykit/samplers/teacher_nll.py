"""Examples that the teacher alone finds likeliest: a control for `difference`."""

from collections.abc import Sequence

import numpy as np

from studykit.samplers._shares import Share, best_share_first
from studykit.sources import Example

MODELS = ("teacher",)


def teacher_nll(
    pool: Sequence[Example], generator: np.random.Generator, teacher_logp: np.ndarray, *, share: Share = 0.5
) -> np.ndarray:
    """Return a permutation that starts with what is easy for the teacher, whether or not a small model knows it."""
    return best_share_first(teacher_logp, share, generator)
