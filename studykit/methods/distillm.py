"""Skew KL, with more of the student's answers, many of them replayed, once validation gets worse (DistiLLM).

The stage names validation data. `loss` may be skew_forward_kl instead.

Source: Ko et al. (2024, arXiv 2402.03898), DistiLLM: Towards Streamlined Distillation for Large Language Models.
"""

from studykit.methods import MIXING, Recipe

distillm = Recipe(loss="skew_reverse_kl", rollout="replay", settable=("loss", *MIXING))
