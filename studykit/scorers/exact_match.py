"""Share of items answered exactly as annotated, spaces apart; in [0, 1]."""

from studykit.scorers import Item, Metric, Score

METRIC = Metric("exact match", unit="points", scale=100.0, higher_is_better=True, digits=1)


def exact_match(item: Item) -> Score:
    """Return 1 where answer and reference are the same words.

    >>> exact_match(Item("a", "", "K AE T", "K  AE T", 0.0, 4)).value
    1.0
    """
    return Score(float((item.answer or "").split() == item.reference.split()))
