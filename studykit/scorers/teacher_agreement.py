"""Share of the tokens of the references at which student and teacher predict the same token; in [0, 1].

Both read the reference up to each token and predict their likeliest next one. The teacher is `evaluation.teacher`, the
same for all arms, whether they are trained with it or not.

Source: Stanton, Izmailov, Kirichenko, Alemi, Wilson (2021, arXiv 2106.05945), Does Knowledge Distillation Really Work?
"""

from studykit.scorers import Item, Metric, Score

METRIC = Metric("agreement with the teacher", unit="points", scale=100.0, higher_is_better=True, digits=1)
NEEDS_GENERATION = False
NEEDS_PREDICTIONS = True
NEEDS_TEACHER = True


def teacher_agreement(item: Item) -> Score:
    """Return the share of one item's tokens, weighted by their number."""
    assert item.predictions is not None
    assert item.predictions.is_teachers is not None
    agree = item.predictions.is_teachers
    return Score(sum(agree) / max(1, len(agree)), len(agree))
