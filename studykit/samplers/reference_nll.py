"""Examples that a small reference model alone finds unlikeliest: a control for `difference`."""

from collections.abc import Sequence

import numpy as np

from studykit.samplers._shares import Share, best_share_first
from studykit.sources import Example

MODELS = ("reference",)


def reference_nll(
    pool: Sequence[Example], generator: np.random.Generator, reference_logp: np.ndarray, *, share: Share = 0.5
) -> np.ndarray:
    """Return a permutation that starts with what is hard for the reference, among it mistakes in the data."""
    return best_share_first(-reference_logp, share, generator)
