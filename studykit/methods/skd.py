"""Speculative distillation: the student drafts, the teacher corrects, and both are compared on the result.

Source: Xu et al. (2025, arXiv 2410.11325), Speculative Knowledge Distillation: Bridging the Teacher-Student Gap
Through Interleaved Sampling.
"""

from studykit.methods import MIXING, Recipe

skd = Recipe(loss="forward_kl", rollout="interleaved", settable=("loss", "loss_options", *MIXING))
