"""α-β divergence on the data's answers: tunes how hard errors and how much confidence are punished.

Source: Wang et al. (2025, arXiv 2505.04560), ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge
Distillation.
"""

from studykit.methods import Recipe

abkd = Recipe(loss="alpha_beta")
