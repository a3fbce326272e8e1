"""Correlation distance and cross-entropy, from a pruned teacher, after prompts with tokens left out (R2KD).

With `prompt_dropout` 0 it trains on the data as it is. As a control, `loss` may be forward_kl.

Agreement: tests/models/test_pruning.py::test_each_linear_layer_loses_its_smallest_weights_and_the_head_none.

Differs: the release's teacher is 0.7 of the whole one's logits and 0.3 of one without a tenth of its weights; here it
is pruned by a fifth, alone, and its output head is left whole.

Source: Kim, Ham, Cho, Kim (2024, arXiv 2311.13934), Robustness-Reinforced Knowledge Distillation with Correlation
Distance and Network Pruning.
"""

from studykit.methods import MIXING, Recipe

r2kd = Recipe(
    loss="correlation",
    rollout="prompt_dropout",
    kd_ratio=0.5,
    temperature=2.0,
    teacher_pruned=0.2,
    settable=("loss", *MIXING, "teacher_pruned"),
    renamed={"teacher_pruned": "pruned"},
)
