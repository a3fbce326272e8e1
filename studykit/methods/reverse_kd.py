"""Distillation by reverse KL on the data's answers: the student stays where the teacher is likely.

Source: Gu et al. (2024, arXiv 2306.08543), MiniLLM, equation 1, here on fixed data; on the student's samples it is
another method.
"""

from studykit.methods import Recipe

reverse_kd = Recipe(loss="reverse_kl")
