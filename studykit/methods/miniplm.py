"""Fine-tuning on those of the budget's examples that the teacher prefers to a small reference model (MiniPLM).

The reference is a small model trained on data that is disjoint from the budget's. As controls, `select` may be
teacher_nll, reference_nll, length_matched or uniform.

Source: Gu et al. (2025, arXiv 2410.17215), MiniPLM: Knowledge Distillation for Pre-Training Language Models.
"""

from studykit.methods import Recipe

miniplm = Recipe(
    loss="cross_entropy",
    select="difference",
    settable=("select", "keep_fraction", "reference"),
    renamed={"keep_fraction": "share"},
)
