"""The held-out items: drawn from the whole split, and counted by source and answer."""

import logging

import pytest

from studykit.evaluation import held_out
from studykit.sources import Example
from studykit.spec import Evaluation
from studykit.study.coverage import describe_items

LABELS, EACH = 77, 40


@pytest.fixture(scope="module")
def sorted_pool():
    """Return a split that is sorted by label, as files of classes are."""
    talk = [
        ({"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"label {n // EACH}"})
        for n in range(LABELS * EACH)
    ]
    return [Example(f"e{n}", turns, f"source-{n % 2}", "human", "test") for n, turns in enumerate(talk)]


def items_of(pool, **evaluation):
    data = {"source": "jsonl", "budget": evaluation.pop("budget", {})}
    return held_out(Evaluation.model_validate({"data": data, **evaluation}), pool)


def test_a_draw_covers_the_labels_of_a_sorted_file_and_its_first_lines_do_not(sorted_pool, caplog):
    with caplog.at_level(logging.WARNING):
        first = describe_items(items_of(sorted_pool, items=200), sorted_pool)
    assert first.by_reference == {f"label {n}": 40 for n in range(5)}
    assert "the 200 held-out items have 5 of the 77 different answers" in caplog.text
    caplog.clear()
    drawn = describe_items(items_of(sorted_pool, budget={"examples": 200}), sorted_pool)
    assert (drawn.examples, drawn.pool_examples, drawn.pool_references) == (200, 3080, 77)
    assert drawn.references > 60
    assert sum((drawn.by_reference or {}).values()) == sum(drawn.by_source.values()) == 200
    assert set(drawn.by_source) == {"source-0", "source-1"}
    assert not caplog.text


def test_a_draw_is_the_same_each_time_and_part_of_a_larger_one(sorted_pool):
    ids = [[e.id for e in items_of(sorted_pool, budget={"examples": n})] for n in (50, 50, 80)]
    assert ids[0] == ids[1] == ids[2][:50]
    other = [e.id for e in items_of(sorted_pool, budget={"examples": 50, "seed": 1})]
    assert set(other) != set(ids[0])


def test_all_of_a_split_keep_their_order(sorted_pool):
    assert items_of(sorted_pool) == sorted_pool
    assert items_of(sorted_pool, budget={"examples": 30, "sampler": "first"}) == sorted_pool[:30]


def test_answers_that_are_no_labels_are_counted_and_not_listed(examples, sorted_pool):
    texts = [e for e in sorted_pool if e.id in ("e0", "e100", "e200")]
    covered = describe_items(texts[:2], texts)
    assert (covered.references, covered.pool_references, covered.by_reference) == (2, 3, None)
