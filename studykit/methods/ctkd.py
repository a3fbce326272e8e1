"""Curriculum temperature: the temperature of the divergence is learned against the student, from easy to hard.

Since the loss learns its temperature, `scale_by_t2` refers to that one.

Source: Li et al. (2023, arXiv 2211.16231), Curriculum Temperature for Knowledge Distillation.
"""

from studykit.methods import Recipe

ctkd = Recipe(
    loss="curriculum_temperature", settable=("kd_ratio",), renamed={"loss.learning_rate": "temperature_learning_rate"}
)
