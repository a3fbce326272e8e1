"""Negative log-likelihood of the annotated answer, nats per token, end token included."""

from studykit.scorers import Item, Metric, Score

METRIC = Metric("NLL", unit="nats per token", higher_is_better=False, digits=3)
NEEDS_GENERATION = False


def nll(item: Item) -> Score:
    """Return the item's nats per token, weighted by its tokens.

    >>> nll(Item("a", "", "K AE T", None, 2.0, 4))
    Score(value=0.5, weight=4)
    """
    return Score(item.reference_nll / item.reference_tokens, item.reference_tokens)
