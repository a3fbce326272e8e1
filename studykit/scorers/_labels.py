"""Answers as labels: normalised texts, and the one label that an answer names."""

import re
import unicodedata
from collections import Counter

from studykit.errors import InputError
from studykit.scorers import Item


def normalise(text: str) -> str:
    """Return the words of a text: without case, punctuation, underscores and repeated spaces.

    >>> normalise(" Card_Arrival. ")
    'card arrival'
    """
    return " ".join(re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).split())


def find_label(item: Item, anywhere: bool) -> str | None:
    """Return the normalised label that an item's answer is; None where it is none.

    Args:
        item: its choices are the labels; without any, every answer is taken for one.
        anywhere: also take an answer that names exactly one of the labels among other words. Of two labels that
            begin at one word the longer counts.
    """
    answer, labels = normalise(item.answer or ""), {normalise(choice) for choice in item.choices}
    if not labels or answer in labels:
        return answer or None
    if not anywhere:
        return None
    rest, named = f" {answer} ", []
    for label in sorted(labels, key=len, reverse=True):
        if f" {label} " in rest:
            named.append(label)
            rest = rest.replace(f" {label} ", " | ")
    return named[0] if len(named) == 1 else None


def check_label(item: Item, name: str) -> None:
    """Refuse an item whose reference is none of the labels, and labels that are one after normalisation.

    Raises:
        InputError: naming the item, or the labels.
    """
    labels = Counter(normalise(choice) for choice in item.choices)
    if labels and "" in labels:
        raise InputError(f"scorer {name!r}: a label has no letter or digit: {item.choices!r:.80}")
    if labels and max(labels.values()) > 1:
        raise InputError(
            f"scorer {name!r}: two labels are {labels.most_common(1)[0][0]!r} without case and punctuation"
        )
    if labels and normalise(item.reference) not in labels:
        raise InputError(
            f"scorer {name!r}: the reference of item {item.id!r} is none of the {len(labels)} labels: "
            f"{item.reference!r:.80}"
        )
