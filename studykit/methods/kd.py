"""Knowledge distillation on the data's answers: a divergence from the teacher at every supervised token.

Formula: `(1 - r) CE + r T² KL(p‖q)`, with r the `kd_ratio`; the factor T² is on with `scale_by_t2`.

Code: the authors' was not seen. As a baseline: microsoft/LMOps@18707df29fd0:minillm/finetune.py and
jongwooko/distillm@17c0f98bc263:distillm/losses.py.

Differs: both baselines keep T at 1 and average over the tokens of a micro-batch; here the sum is divided by the tokens
of the optimizer step.

Differs: T² is off by default, for this loss as for all others.

Source: Hinton, Vinyals, Dean (2015, arXiv 1503.02531), Distilling the Knowledge in a Neural Network.
"""

from studykit.methods import MIXING, Recipe

kd = Recipe(loss="forward_kl", settable=("loss", "loss_options", *MIXING))
