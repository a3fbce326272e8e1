"""The table of scores holds those of the items, also where a file cannot be read whole."""

import json
import math

import pandas as pd
import pytest

from studykit import results

RIGHT = {"id": "a", "prompt": "1+1?", "answer": "2", "scores": {"exact_match": 1.0, "nll": 0.25}}
WRONG = {"id": "b", "prompt": "1+2?", "answer": "4", "scores": {"exact_match": 0.0, "nll": 1e-7}}
BOTH = {"a": [1.0, 0.25], "b": [0.0, 1e-7]}

FILES = {
    "plain": ([RIGHT, WRONG], BOTH),
    "whole numbers": ([RIGHT, WRONG | {"scores": {"exact_match": 0, "nll": 1e-7}}], BOTH),
    "a score is missing": ([RIGHT, WRONG | {"scores": {"exact_match": 0.0}}], {"a": [1.0, 0.25], "b": [0.0, math.nan]}),
    "a score is null": (
        [RIGHT, WRONG | {"scores": {"exact_match": 0.0, "nll": None}}],
        {"a": [1.0, 0.25], "b": [0.0, math.nan]},
    ),
    "an id twice: the last counts": ([WRONG | {"id": "a"}, RIGHT, WRONG], BOTH),
    "ids like dates": (
        [RIGHT | {"id": "2020-01-01"}, WRONG | {"id": "b"}],
        {"2020-01-01": [1.0, 0.25], "b": BOTH["b"]},
    ),
    "all ids like dates": ([RIGHT | {"id": "2020-01-01"}], {"2020-01-01": [1.0, 0.25]}),
    "no text": ([RIGHT, WRONG | {"scores": {"exact_match": "0", "nll": 0.0}}], {"a": BOTH["a"]}),
    "truth is no number": ([RIGHT, WRONG | {"scores": {"exact_match": False, "nll": 0.0}}], {"a": BOTH["a"]}),
    "an id that is none": ([RIGHT, WRONG | {"id": 3}], {"a": BOTH["a"]}),
    "scores that are none": ([RIGHT, WRONG | {"scores": [0.0]}], {"a": BOTH["a"]}),
}


@pytest.fixture
def run(study):
    return results.run_folder(study, results.load(study)["run_id"].iloc[0])


def items_of(run):
    found = results.find_evaluation(run)
    assert found
    return found.folder / "items.jsonl"


@pytest.mark.parametrize(("items", "expected"), FILES.values(), ids=FILES)
@pytest.mark.parametrize("damage", ["", "{\n"])
def test_each_item_has_its_scores(run, items, expected, damage):
    items_of(run).write_text("".join(f"{json.dumps(item)}\n" for item in items) + damage, encoding="utf-8")
    wanted = pd.DataFrame.from_dict(expected, orient="index", columns=["exact_match", "nll"], dtype=float)
    pd.testing.assert_frame_equal(results.read_item_scores(run), wanted, check_exact=True)


def test_the_scores_are_those_of_the_items(run):
    items, damaged = results.read_items(run)
    assert items
    assert not damaged
    found = results.read_item_scores(run)
    assert {name: row.dropna().to_dict() for name, row in found.iterrows()} == {i["id"]: i["scores"] for i in items}


def test_without_items_there_are_no_rows(run):
    items_of(run).write_bytes(b"")
    assert results.read_item_scores(run).empty
    items_of(run).unlink()
    assert results.read_item_scores(run).empty
    assert results.read_item_scores(run, "0" * 12).empty
