"""Generalised distillation: a Jensen-Shannon divergence, partly on the student's answers.

Source: Agarwal et al. (2024, arXiv 2306.13649), On-Policy Distillation of Language Models: Learning from Self-Generated
Mistakes.
"""

from studykit.methods import Recipe

gkd = Recipe(loss="jsd", rollout="mixed")
