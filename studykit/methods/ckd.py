"""Comparative distillation: the student learns what separates two positions, for the teacher and for the labels.

Source: Wilf et al. (2023, arXiv 2311.02253), Comparative Knowledge Distillation.
"""

from studykit.methods import Recipe

ckd = Recipe(
    loss="comparative", kd_ratio=0.5, settable=("kd_ratio",), renamed={"loss.temperature": "comparison_temperature"}
)
