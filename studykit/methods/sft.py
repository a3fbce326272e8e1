"""Supervised fine-tuning: cross-entropy on the data's own answers.

Source: Ouyang et al. (2022, arXiv 2203.02155), Training Language Models to Follow Instructions with Human Feedback,
step 1.
"""

from studykit.methods import Recipe


def sft() -> Recipe:
    """Return the baseline every comparison has; it uses no teacher."""
    return Recipe(loss="cross_entropy")
