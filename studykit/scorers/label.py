"""Share of items whose answer is the right label, without regard to case and punctuation; in [0, 1].

The labels are the choices of the examples, or of the evaluation: `choices: "references"` takes all answers of the
split. An answer that is no label is wrong.
"""

from studykit.scorers import Item, Metric, Score
from studykit.scorers._labels import check_label, find_label, normalise

METRIC = Metric("right labels", unit="points", scale=100.0, higher_is_better=True, digits=1)


def label(item: Item, *, anywhere: bool = False) -> Score:
    """Return 1 where the answer is the right label.

    Args:
        item: answered.
        anywhere: also accept an answer that names the right label among other words, and no other label.

    >>> label(Item("a", "", "card_arrival", "Card arrival.", 0.0, 4, choices=("card_arrival", "lost_card"))).value
    1.0
    """
    return Score(float(find_label(item, anywhere) == normalise(item.reference)))


def check(item: Item, *, anywhere: bool = False) -> None:
    """Refuse an item whose reference is none of the labels."""
    check_label(item, "label")
