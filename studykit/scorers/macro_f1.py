"""Mean over labels of the F1 of each: rare labels count as much as frequent ones; in [0, 1].

F1 = 2 TP / (2 TP + FP + FN) of each label that is a reference of some item. An answer that is no label is a miss (FN)
of its reference and a false alarm (FP) of none. Labels are those of `label`.

Source: Opitz, Burst (2019, arXiv 1911.03347), Macro F1 and Macro F1: the mean of F1 scores.
"""

from collections.abc import Sequence

from studykit.scorers import Item, Metric, Score
from studykit.scorers._labels import check_label, find_label, normalise

METRIC = Metric("macro-F1", unit="points", scale=100.0, higher_is_better=True, digits=1)


def macro_f1(item: Item, *, anywhere: bool = False) -> Score:
    """Return 1 where the answer is the right label; the metric of a run is no mean of these.

    Args:
        item: answered.
        anywhere: also accept an answer that names the right label among other words, and no other label.
    """
    return Score(float(find_label(item, anywhere) == normalise(item.reference)))


def over_items(items: Sequence[Item], *, anywhere: bool = False) -> float:
    """Return the mean F1 over the labels that are references.

    >>> pairs = [("a", "a"), ("a", "b"), ("b", "b")]                 # F1: a 2/3, b 2/3
    >>> round(over_items([Item("", "", reference, answer, 0.0, 1) for reference, answer in pairs]), 4)
    0.6667
    """
    pairs = [(normalise(item.reference), find_label(item, anywhere)) for item in items]
    labels = {reference for reference, _ in pairs}
    return sum(_f1(label, pairs) for label in labels) / len(labels)


def check(item: Item, *, anywhere: bool = False) -> None:
    """Refuse an item whose reference is none of the labels."""
    check_label(item, "macro_f1")


def _f1(label: str, pairs: Sequence[tuple[str, str | None]]) -> float:
    right = sum(reference == answer == label for reference, answer in pairs)
    either = sum((reference == label) + (answer == label) for reference, answer in pairs)
    return 2 * right / either
