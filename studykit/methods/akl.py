"""Adaptive KL on the data's answers: forward and reverse KL, weighted by where student and teacher differ.

Source: Wu et al. (2024, arXiv 2404.02657), Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large
Language Models.
"""

from studykit.methods import Recipe

akl = Recipe(loss="adaptive_kl")
