"""Skew forward KL on the teacher's answer and skew reverse KL on the student's, for every prompt (DistiLLM-2).

Every prompt is two rows: the teacher's answer, generated once, and a new answer of the student's.

Source: Ko et al. (2025, arXiv 2503.07067), DistiLLM-2: A Contrastive Approach Boosts the Distillation of LLMs.
"""

from studykit.methods import Recipe

distillm2 = Recipe(loss="contrastive_skew", rollout="teacher_and_student")
