"""TAID on the data's answers: the target moves from the student's distribution to the teacher's.

Source: Shing et al. (2025, arXiv 2501.16937), TAID: Temporally Adaptive Interpolated Distillation, algorithm 1.
"""

from studykit.methods import Recipe

taid = Recipe(loss="taid")
