"""What rollouts are made of: prompts put together with answers, and batches put together."""

import torch
from rows import PAD, rows_of

from studykit.losses import Author
from studykit.rollouts import answered, joined


def test_answered_supervises_the_answer_from_its_first_token(batch):
    made = answered(batch(), [[5, 6, 7], [8]], [[9, 2], []], Author.STUDENT, PAD)
    assert made.input_ids.tolist() == [[5, 6, 7, 9, 2], [8, 0, 0, 0, 0]]
    assert made.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]
    assert made.loss_mask.int().tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]
    assert made.target.tolist() == [9, 2]
    hidden = torch.arange(10.0).view(2, 5, 1)
    assert made.predicting(hidden)[:, 0].tolist() == [2, 3]  # the prompt's last position predicts the first token


def test_joined_pads_to_the_wider_and_keeps_who_wrote_what(batch):
    wide, narrow = batch([6]), answered(batch(), [[5, 6]], [[7]], Author.TEACHER, PAD)
    both = joined([narrow, wide], PAD)
    assert rows_of(both) == [([5, 6], [7]), *rows_of(wide)]
    assert both.author is not None
    assert both.author.tolist() == [Author.TEACHER, Author.DATA]
    assert both.keys == []
    assert joined([wide, wide], PAD).keys == wide.keys * 2
