"""Edits from answer to reference per reference word: phoneme error rate on phonemes, word error rate on text.

Insertions, deletions and substitutions each cost 1 (Levenshtein distance over words split at spaces). The metric of a
run is all edits over all reference words, not a mean of rates.
"""

from collections.abc import Sequence

from studykit.scorers import Item, Metric, Score

METRIC = Metric("phoneme or word error rate", unit="%", scale=100.0, higher_is_better=False, digits=1)


def token_error_rate(item: Item) -> Score:
    """Return the item's edits per reference word, weighted by its reference words.

    >>> token_error_rate(Item("a", "", "K AE T", "K AH T S", 0.0, 4))         # one substitution, one insertion
    Score(value=0.6666666666666666, weight=3)
    """
    reference = item.reference.split()
    return Score(edit_distance((item.answer or "").split(), reference) / len(reference), len(reference))


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the Levenshtein distance between two sequences.

    >>> edit_distance("kitten", "sitting")
    3
    """
    above = list(range(len(second) + 1))
    for i, left in enumerate(first, 1):
        row = [i]
        for j, right in enumerate(second, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (left != right)))
        above = row
    return above[-1]
