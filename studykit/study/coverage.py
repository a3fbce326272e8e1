"""What the held-out items of a run cover of their split: its sources and its different answers."""

import logging
from collections import Counter
from collections.abc import Sequence

from studykit.results.record import HeldOut
from studykit.sources import Example, column, content_hash

_LOG = logging.getLogger(__name__)
_MOST_LABELS = 100
"""Distinct references of a split that are counted one by one, where each occurs twice on average: its labels."""


def describe_items(items: Sequence[Example], pool: Sequence[Example]) -> HeldOut:
    """Return what the items cover of the split; where they hold less than half of its labels, say so in the log.

    Args:
        items: the held-out items.
        pool: all examples of their split.
    """
    references, possible = Counter(e.answer for e in items), len(set(column(pool, "answer_key")))
    has_labels = possible <= _MOST_LABELS and 2 * possible <= len(pool)
    if has_labels and 2 * len(references) < possible:
        _LOG.warning(
            "the %s held-out items have %s of the %s different answers of their split: draw them "
            "(evaluation.data.budget instead of items), or score more",
            f"{len(items):,}",
            len(references),
            possible,
        )
    return HeldOut(
        examples=len(items),
        pool_examples=len(pool),
        examples_sha256=content_hash(items),
        by_source=dict(sorted(Counter(e.source for e in items).items())),
        references=len(references),
        pool_references=possible,
        by_reference=dict(sorted(references.items())) if has_labels else None,
    )
