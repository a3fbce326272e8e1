"""Expected calibration error of any predictions with a confidence."""

from collections.abc import Sequence

import numpy as np


def expected_calibration_error(confidence: Sequence[float], is_right: Sequence[bool], bins: int) -> float | None:
    """Return Σ_m |B_m| / n |accuracy(B_m) - confidence(B_m)|, in [0, 1]; None without predictions.

    Bin m of M holds the predictions with a confidence in ((m - 1) / M, m / M].

    Args:
        confidence: probabilities of what was predicted, [n].
        is_right: whether it was right, [n].
        bins: M.

    >>> expected_calibration_error([0.75, 0.75, 0.5, 0.5], [True, False, False, False], bins=2)    # (1/4 + 1/2) / 2
    0.375
    """
    if not len(confidence):
        return None
    gaps = np.asarray(is_right, dtype=float) - np.asarray(confidence, dtype=float)
    bin_of = np.ceil(np.asarray(confidence, dtype=float) * bins).astype(int).clip(1, bins)
    return float(np.abs(np.bincount(bin_of, weights=gaps)).sum() / len(gaps))
