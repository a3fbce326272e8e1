"""Negative log-likelihood of the annotated answer in bits per byte of its text: the same unit for every tokenizer.

The bits are those of all its tokens and of the token that ends it, so that models with different end tokens describe
the same thing; the bytes are those of the text in UTF-8, without the end.
"""

import math

from studykit.scorers import Item, Metric, Score

METRIC = Metric("code length of answers", unit="bits per byte", higher_is_better=False, digits=3)
NEEDS_GENERATION = False


def bits_per_byte(item: Item) -> Score:
    """Return the item's bits per byte, weighted by its bytes.

    >>> bits_per_byte(Item("a", "", "K AE T", None, 12 * math.log(2), 4, reference_bytes=6))
    Score(value=2.0, weight=6)
    """
    return Score(item.reference_nll / math.log(2) / max(1, item.reference_bytes), item.reference_bytes)
