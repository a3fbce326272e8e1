"""ROUGE-L of the answer: F1 of the longest common subsequence of its words and the reference's; in [0, 1].

Words are those of the package rouge-score: runs of the letters a to z and digits, without case, not stemmed. In other
scripts there are none, and `chrf` is the metric. The metric of a run is the mean over items.

Source: Lin (2004), ROUGE: A Package for Automatic Evaluation of Summaries, section 3.
"""

from studykit.errors import InputError
from studykit.scorers import Item, Metric, Score, require

METRIC = Metric("ROUGE-L", unit="points", scale=100.0, higher_is_better=True, digits=1)


def rouge_l(item: Item, *, stemmed: bool = False) -> Score:
    """Return ROUGE-L (F1) of one answer.

    Args:
        item: answered.
        stemmed: whether words are reduced to their stems (Porter) first.
    """
    scorer = require("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=stemmed)
    return Score(float(scorer.score(item.reference, item.answer or "")["rougeL"].fmeasure))


def check(item: Item, *, stemmed: bool = False) -> None:
    """Refuse a reference without a word.

    Raises:
        InputError: naming the item, or the missing package.
    """
    tokenizer = require("rouge_score.tokenizers").DefaultTokenizer(stemmed)
    if not tokenizer.tokenize(item.reference):
        raise InputError(
            f"scorer 'rouge_l': the reference of item {item.id!r} has no word of letters a to z or digits, "
            f"{item.reference!r:.60}: score it with chrf"
        )
