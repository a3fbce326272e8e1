"""Decoupled distillation on the data's answers: the label's share and the other classes are weighted separately.

Source: Zhao et al. (2022, arXiv 2203.08679), Decoupled Knowledge Distillation, equation 7.
"""

from studykit.methods import Recipe

dkd = Recipe(loss="decoupled_kl")
