"""chrF of the answers: F-score of character n-grams (n to 6, recall twice as important); in [0, 1].

The metric of a run is computed over all its items together, as sacrebleu does (`chrF2`, and `chrF2++` with
word_order=2), and is no mean over items.

Source: Popović (2015), chrF: character n-gram F-score for automatic MT evaluation; Popović (2017), chrF++.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from studykit.scorers import Item, Metric, Score, require

METRIC = Metric("chrF", unit="points", scale=100.0, higher_is_better=True, digits=1)

Order = Annotated[int, Field(ge=0, le=6)]


def chrf(item: Item, *, word_order: Order = 0) -> Score:
    """Return the chrF of one answer; the metric of a run is no mean of these.

    Args:
        item: answered.
        word_order: longest word n-gram that is counted too; 2 gives chrF++.
    """
    return Score(_chrf(word_order).sentence_score(item.answer or "", [item.reference]).score / 100)


def over_items(items: Sequence[Item], *, word_order: Order = 0) -> float:
    """Return the chrF of all answers together."""
    answers, references = [item.answer or "" for item in items], [item.reference for item in items]
    return _chrf(word_order).corpus_score(answers, [references]).score / 100


def check(item: Item, *, word_order: Order = 0) -> None:
    """Refuse to start without the package sacrebleu.

    Raises:
        InputError: naming the extra that has it.
    """
    require("sacrebleu")


def _chrf(word_order: int) -> Any:
    return require("sacrebleu.metrics").CHRF(word_order=word_order)
