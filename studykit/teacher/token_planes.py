"""Token ids as bytes: the low 16 bits of each id, then the bits above them, in two separate planes.

The high plane takes no bits up to a vocabulary of 65,536 tokens, 2 bits per id up to 262,144, and 8 above that.
"""

from collections.abc import Sequence

import numpy as np

_SHIFTS = np.array([0, 2, 4, 6], dtype=np.uint8)


class TokenPlanes:
    """Splits token ids into two planes of bytes, and joins these again.

    Args:
        vocab_size: every id is below it.

    Attributes:
        high_bits: per id, above the low 16.
    """

    def __init__(self, vocab_size: int):
        self.high_bits = 0 if vocab_size <= 2**16 else 2 if vocab_size <= 2**18 else 8

    def high_bytes(self, count: int) -> int:
        """Return the bytes that the high plane of `count` ids takes."""
        return -(-count * self.high_bits // 8)

    def split(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the low plane [..., 2 m] and the high plane [..., b] of ids [..., m], both uint8."""
        low = np.ascontiguousarray(ids.astype("<u2")).view(np.uint8)
        high = (ids >> 16).astype(np.uint8)
        if self.high_bits == 2:
            padded = np.zeros((*ids.shape[:-1], 4 * self.high_bytes(ids.shape[-1])), dtype=np.uint8)
            padded[..., : ids.shape[-1]] = high
            fours = padded.reshape(*ids.shape[:-1], self.high_bytes(ids.shape[-1]), 4)
            high = np.bitwise_or.reduce(fours << _SHIFTS, axis=-1)
        return low, high[..., : self.high_bytes(ids.shape[-1])]

    def join(self, low: np.ndarray, high: np.ndarray, sizes: Sequence[int] | None = None) -> np.ndarray:
        """Return the ids, int32 [..., m].

        Args:
            low: uint8 [..., 2 m].
            high: uint8 [..., b].
            sizes: ids in each run, where the planes are those of several runs that were split one by one and
                concatenated.
        """
        ids = np.ascontiguousarray(low).view("<u2").astype(np.int32)
        if self.high_bits == 2:
            high = ((high[..., None] >> _SHIFTS) & 3).reshape(*high.shape[:-1], 4 * high.shape[-1])
            high = high[..., : ids.shape[-1]] if sizes is None else high[_mask_padding(np.array(sizes), 4)]
        return ids | high.astype(np.int32) << 16 if self.high_bits else ids


def _mask_padding(sizes: np.ndarray, multiple: int) -> np.ndarray:
    """Return which elements are data (True) where runs of these sizes are each padded to a multiple, bool [n].

    >>> _mask_padding(np.array([1, 2]), 2).tolist()
    [True, False, True, True]
    """
    padded = -(-sizes // multiple) * multiple
    starts = np.cumsum(padded) - padded
    return np.arange(padded.sum()) - np.repeat(starts, padded) < np.repeat(sizes, padded)
