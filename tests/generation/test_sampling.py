"""Draws of single tokens: against known distributions, at the ends of the line, and with options out of range."""

import pytest
import torch
from toys import assert_frequencies, seeded

from studykit.errors import InputError
from studykit.generation import Sampling, draw

DYADIC = [1 / 8, 1 / 2, 0, 1 / 4, 1 / 8]
"""Sums of these are exact; of two equal ones the first counts as likelier."""


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (1.0, {0, 1, 3, 4}),
        (0.9, {0, 1, 3, 4}),
        (0.875, {0, 1, 3}),
        (0.76, {0, 1, 3}),
        (0.75, {1, 3}),
        (0.51, {1, 3}),
        (0.5, {1}),
        (0.01, {1}),
    ],
)
def test_draws_follow_the_distribution_on_the_smallest_set_that_reaches_top_p(top_p, kept):
    expected = torch.tensor([p if token in kept else 0.0 for token, p in enumerate(DYADIC)])
    drawn = draw(torch.tensor([DYADIC] * 20000), top_p, seeded(1))
    assert set(drawn.tolist()) == kept
    assert_frequencies(torch.bincount(drawn, minlength=5), expected / expected.sum())


def test_rows_are_drawn_each_from_its_own_distribution():
    table = torch.rand(30, 7, generator=seeded(2)) ** 4
    drawn = draw(table.repeat(2000, 1), 1.0, seeded(3)).view(2000, 30)
    counts = torch.stack([torch.bincount(column, minlength=7) for column in drawn.T])
    assert_frequencies(counts, table / table.sum(dim=-1, keepdim=True))


@pytest.mark.parametrize("top_p", [1.0, 0.99])
@pytest.mark.parametrize(("number", "token"), [(0.0, 2), (1 - 2.0**-53, 4)])
def test_the_ends_of_the_line_never_give_an_impossible_token(number, token, top_p, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **keywords: torch.full(shape, number, dtype=torch.float64))
    probabilities = torch.tensor([[0.0, 0.0, 0.4, 0.0, 0.2, 0.0], [0.0, 0.0, 0.25, 0.55, 0.2, 0.0]])[:1]
    assert draw(probabilities, top_p, seeded()).tolist() == [token]


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_diverged_model_still_gives_a_token(top_p):
    drawn = draw(torch.full((3, 5), torch.nan), top_p, seeded())
    assert drawn.min() >= 0
    assert drawn.max() < 5


def test_one_random_number_a_row_whatever_the_vocabulary():
    small, large = seeded(4), seeded(4)
    draw(torch.ones(3, 2), 1.0, small)
    draw(torch.ones(3, 1000), 0.5, large)
    assert torch.equal(small.get_state(), large.get_state())


def test_temperature_sharpens_and_zero_takes_the_likeliest():
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    torch.testing.assert_close(Sampling(0.5).distribution(logits), (logits * 2).softmax(-1))
    assert Sampling(0).distribution(logits).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(("options", "message"), [((-0.1, 1.0), "temperature"), ((1, 0.0), "top_p"), ((1, 1.1), "top")])
def test_sampling_out_of_range_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Sampling(*options)
