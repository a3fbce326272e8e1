"""Generalised distillation: a Jensen-Shannon divergence, partly on the student's answers.

Formula: with probability `lmbda` the answers of a batch are sampled from the student, else they are the data's; no
gradient passes through the sampling.

Code: the authors' was not seen. huggingface/trl@7310b81fbd40:trl/experimental/gkd/gkd_trainer.py.

Differs: trl 1.16 samples at temperature 0.9 by default; here it is 1, which samples from the student as it is.

Differs: trl divides by the supervised tokens of the micro-batch, here by those of the optimizer step.

Source: Agarwal et al. (2024, arXiv 2306.13649), On-Policy Distillation of Language Models: Learning
from Self-Generated Mistakes.
"""

from studykit.methods import Recipe

gkd = Recipe(loss="jsd", rollout="mixed")
