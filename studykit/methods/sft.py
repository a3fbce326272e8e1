"""Supervised fine-tuning: cross-entropy on the data's own answers."""

from studykit.methods import Recipe


def sft() -> Recipe:
    """Return the baseline every comparison has; it uses no teacher."""
    return Recipe(loss="cross_entropy")
