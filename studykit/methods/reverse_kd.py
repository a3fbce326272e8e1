"""Distillation by reverse KL on the data's answers: the student stays where the teacher is likely.

Code: jongwooko/distillm@17c0f98bc263:distillm/losses.py has it as `reverse_kl`, a baseline.

Differs: the paper minimises KL(q‖p) of whole answers that the student samples (`minillm`); this method, like the
baseline, takes it token by token on the data.

Source: Gu et al. (2024, arXiv 2306.08543), MiniLLM, equation 1, here on fixed data; on the
student's samples it is another method.
"""

from studykit.methods import Recipe

reverse_kd = Recipe(loss="reverse_kl")
