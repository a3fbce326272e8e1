"""Scores of single items against values worked out by hand, and their means over items."""

import math

import pytest

from studykit.errors import InputError
from studykit.scorers import SCORERS, Item, Predictions, Score, metric, needs_generation, score_items, weighted_means
from studykit.scorers.token_error_rate import edit_distance


def item(reference: str, answer: str | None, nll: float = 0.0, tokens: int = 1) -> Item:
    return Item("a", "", reference, answer, nll, tokens)


def score(name: str, scored: Item) -> Score:
    return score_items([scored], [name])[0][name]


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("K AE T", "K AE T", 1),
        ("K AE T", "  K  AE\nT ", 1),
        ("K AE T", "K AE", 0),
        ("K AE T", "K AE T T", 0),
        ("K AE T", "k ae t", 0),
        ("K AE T", "", 0),
        ("K AE T", None, 0),
    ],
)
def test_exact_match(reference, answer, expected):
    assert score("exact_match", item(reference, answer)) == (expected, 1)


@pytest.mark.parametrize(
    ("reference", "answer", "edits"),
    [
        ("K AE T", "K AE T", 0),
        ("K AE T", "K AH T", 1),
        ("K AE T", "K T", 1),
        ("K AE T", "K AE T S", 1),
        ("K AE T", "AE T K", 2),
        ("K AE T", "", 3),
        ("K AE T", None, 3),
        ("K", "T T T T", 4),
    ],
)
def test_token_error_rate(reference, answer, edits):
    words = len(reference.split())
    assert score("token_error_rate", item(reference, answer)) == (edits / words, words)


def test_edit_distance_is_a_distance():
    words = ["", "a", "ab", "ba", "abc", "bca", "kitten", "sitting"]
    for a in words:
        for b in words:
            assert edit_distance(a, b) == edit_distance(b, a)
            assert (edit_distance(a, b) == 0) == (a == b)
            for c in words:
                assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


def test_nll_is_per_token():
    assert score("nll", item("K", None, nll=6.0, tokens=4)) == (1.5, 4)


def test_a_mean_is_over_tokens_and_not_over_items():
    items = [item("K", "T", nll=2.0, tokens=1), item("K AE T D", "K AE T D", nll=2.0, tokens=4)]
    means = weighted_means(score_items(items, ["exact_match", "token_error_rate", "nll"]))
    assert means == {"exact_match": 0.5, "token_error_rate": 1 / 5, "nll": 4 / 5}


def test_a_metric_without_weight_is_absent():
    assert weighted_means([{"nll": Score(math.inf, 0)}]) == {}
    assert weighted_means([]) == {}


def test_only_likelihood_needs_no_answer():
    assert not needs_generation(["nll"])
    assert needs_generation(["nll", "exact_match"])
    assert needs_generation(["token_error_rate"])


def scored_item(is_right: bool) -> Item:
    """Return an item that any scorer can score, right or wrong in everything."""
    reference, other, both = "K AE T 3", "T T 4", [is_right] * 4
    least, most = (0.25, 9.0) if is_right else (9.0, 0.25)
    return Item(
        "a",
        "",
        reference,
        reference if is_right else other,
        least,
        5,
        reference_bytes=8,
        choices=(reference, other),
        choice_nll=(least, most),
        choice_tokens=(5, 4),
        predictions=Predictions([0.75] * 4, both, both),
    )


@pytest.mark.parametrize("name", SCORERS.names())
def test_every_scorer_says_which_way_is_better(name):
    shown = metric(name)
    assert shown.title
    assert shown.scale in (1.0, 100.0)
    assert SCORERS.describe(name)
    perfect, wrong = (score(name, scored_item(is_right)).value for is_right in (True, False))
    assert (perfect > wrong) == shown.higher_is_better


def test_a_column_that_is_no_scorers_is_shown_as_it_is():
    assert metric("peak_mem_gib").label == "peak mem gib"
    assert metric("peak_mem_gib").scale == 1.0
    assert metric("exact_match").label == "exact match (points)"


def test_an_unknown_scorer_is_refused():
    with pytest.raises(InputError, match="did you mean 'exact_match'"):
        score_items([item("K", "K")], ["exact_mach"])
