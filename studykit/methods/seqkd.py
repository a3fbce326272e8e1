"""Sequence-level distillation: fine-tuning on the teacher's answers, generated once per prompt.

Source: Kim, Rush (2016, arXiv 1606.07947), Sequence-Level Knowledge Distillation.
"""

from studykit.methods import Recipe

seqkd = Recipe(loss="cross_entropy", rollout="teacher", settable=())
