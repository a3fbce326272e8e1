"""Supervised fine-tuning: cross-entropy on the data's answers, without a teacher.

Source: Ouyang et al. (2022, arXiv 2203.02155), Training Language Models to Follow Instructions with Human Feedback,
step 1.
"""

from studykit.methods import Recipe

sft = Recipe(loss="cross_entropy", settable=())
