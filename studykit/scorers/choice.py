"""Share of items whose reference is the likeliest of the choices, by the sum over its tokens; in [0, 1].

Nothing is generated: each choice is read as the answer, its end token included, in one forward pass. The sum favours
short choices; `choice_per_token` does not.
"""

from studykit.scorers import Item, Metric, Score
from studykit.scorers._choices import check_choices, is_right

METRIC = Metric("right choices", unit="points", scale=100.0, higher_is_better=True, digits=1)
NEEDS_GENERATION = False
NEEDS_CHOICES = True


def choice(item: Item) -> Score:
    """Return 1 where the reference has the largest log-likelihood.

    >>> item = Item("a", "", "yes", None, 2.0, 2, choices=("yes", "not at all"), choice_nll=(2.0, 3.0))
    >>> choice(item).value
    1.0
    """
    return Score(float(is_right(item, item.choice_nll)))


def check(item: Item) -> None:
    """Refuse an item whose reference is none of its choices."""
    check_choices(item, "choice")
