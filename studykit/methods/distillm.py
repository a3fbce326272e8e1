"""Skew KL, with more of the student's answers, many of them replayed, once validation gets worse (DistiLLM).

The stage names validation data. `loss` may be skew_forward_kl instead.

Code: jongwooko/distillm@17c0f98bc263:distillm/losses.py, jongwooko/distillm@17c0f98bc263:finetune.py and
jongwooko/distillm@17c0f98bc263:scripts/gpt2/distillm/train_0.1B_1.5B.sh.

Differs: that script has skew forward KL, here skew reverse KL is the default; λ is 0.1 in both.

Differs: the release adds cross-entropy on a plain corpus; here there is none.

Source: Ko et al. (2024, arXiv 2402.03898), DistiLLM: Towards Streamlined Distillation for Large Language Models.
"""

from studykit.methods import MIXING, Recipe

distillm = Recipe(loss="skew_reverse_kl", rollout="replay", settable=("loss", *MIXING))
