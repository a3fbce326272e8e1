"""What a rollout may use: prompts joined with answers, and the limit of a sequence."""

import torch
from rows import rows_of

from studykit.losses import Author


def test_only_the_answer_is_supervised_from_its_first_token(context):
    made = context().join([[5, 6, 7], [8]], [[9, 2], []], Author.STUDENT)
    assert made.input_ids.tolist() == [[5, 6, 7, 9, 2], [8, 0, 0, 0, 0]]
    assert made.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]
    assert made.loss_mask.int().tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]
    assert made.target.tolist() == [9, 2]
    hidden = torch.arange(10.0).view(2, 5, 1)
    assert made.predicting(hidden)[:, 0].tolist() == [2, 3]  # the prompt's last position predicts the first token
    assert made.author is not None
    assert made.author.tolist() == [Author.STUDENT] * 2


def test_each_row_may_have_another_author(context):
    made = context().join([[5, 6], [8]], [[7], [9, 2]], [Author.TEACHER, Author.DATA])
    assert rows_of(made) == [([5, 6], [7]), ([8], [9, 2])]
    assert made.author is not None
    assert made.author.tolist() == [Author.TEACHER, Author.DATA]
    assert made.keys == []


def test_prompt_and_answer_together_fit_into_the_stages_length(context):
    assert context(max_length=6).limit([[5], [5] * 4, [5] * 7], 3) == [3, 2, 0]
