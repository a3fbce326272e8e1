"""Sequence-level distillation: fine-tuning on the teacher's answers, generated once per prompt.

Formula: the teacher's answer y to a prompt, its likeliest by beam search, takes the place of the data's: the sum of
`-log q(y_t)` over its tokens.

Code: harvardnlp/seq2seq-attn@16f3c0c1ae67:README.md names the paper among what it implements; the code that makes the
teacher's answers was not seen.

Agreement: tests/generation/test_autoregressive.py::test_greedy_answers_are_those_of_transformers, token by token.

Differs: greedy decoding by default instead of beam search; `teacher_sampling_temperature` samples.

Differs: answers that do not end within `max_new_tokens` are left out and counted.

Source: Kim, Rush (2016, arXiv 1606.07947), Sequence-Level Knowledge Distillation.
"""

from studykit.methods import Recipe

seqkd = Recipe(loss="cross_entropy", rollout="teacher", settable=())
