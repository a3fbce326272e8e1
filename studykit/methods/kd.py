"""Knowledge distillation on the data's answers: a divergence from the teacher at every supervised token.

Source: Hinton, Vinyals, Dean (2015, arXiv 1503.02531), Distilling the Knowledge in a Neural Network.
"""

from studykit.methods import MIXING, Recipe

kd = Recipe(loss="forward_kl", settable=("loss", "loss_options", *MIXING))
