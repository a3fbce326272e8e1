"""Cross-entropy and the distance of sorted probabilities: the teacher may have another tokenizer (ULD).

Source: Boizard, El Haddad, Hudelot, Colombo (2024, arXiv 2402.12030), Towards Cross-Tokenizer Distillation: the
Universal Logit Distillation Loss for LLMs.
"""

from studykit.methods import Recipe

uld = Recipe(loss="sorted_l1", settable=())
