"""Share of items whose reference is the likeliest of the choices, by the mean over its tokens; in [0, 1].

As `choice`, with the log-likelihood of each choice divided by its number of tokens, the end token included.
"""

from studykit.scorers import Item, Metric, Score
from studykit.scorers._choices import check_choices, is_right

METRIC = Metric("right choices per token", unit="points", scale=100.0, higher_is_better=True, digits=1)
NEEDS_GENERATION = False
NEEDS_CHOICES = True


def choice_per_token(item: Item) -> Score:
    """Return 1 where the reference has the largest log-likelihood per token.

    >>> shared = {"choices": ("yes", "not at all"), "choice_nll": (2.0, 3.0), "choice_tokens": (2, 4)}
    >>> choice_per_token(Item("a", "", "yes", None, 2.0, 2, **shared)).value
    0.0
    """
    return Score(float(is_right(item, [nll / n for nll, n in zip(item.choice_nll, item.choice_tokens, strict=True)])))


def check(item: Item) -> None:
    """Refuse an item whose reference is none of its choices."""
    check_choices(item, "choice_per_token")
