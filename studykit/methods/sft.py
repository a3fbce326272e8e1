"""Supervised fine-tuning: cross-entropy on the data's answers, without a teacher.

Code: openai/following-instructions-human-feedback@5c0534c78136:README.md lists a model card and samples; code of
training was not seen there.

Differs: nothing that could be compared, without that code.

Source: Ouyang et al. (2022, arXiv 2203.02155), Training Language Models to Follow Instructions with Human Feedback,
step 1.
"""

from studykit.methods import Recipe

sft = Recipe(loss="cross_entropy", settable=())
