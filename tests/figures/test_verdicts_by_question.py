"""Verdicts are counted by study and question, one bar for each word."""

from typing import Any

import pandas as pd

from studykit.figures.verdicts_by_question import verdicts_by_question

COLUMNS = ["study", "question", "verdict"]


def test_each_word_is_counted_for_each_question():
    rows = [
        ("one", "methods", "helps"),
        ("one", "methods", "cannot tell (needs about 7 seeds)"),
        ("one", "methods", "helps"),
        ("two", "taid", "tie (no difference larger than 1.0 points)"),
    ]
    figure: Any = verdicts_by_question(pd.DataFrame(rows, columns=COLUMNS))
    counts = {bar.name: dict(zip(bar.y, bar.x, strict=True)) for bar in figure.data}
    assert counts == {
        "helps": {"one: methods": 2, "two: taid": 0},
        "hurts": {"one: methods": 0, "two: taid": 0},
        "tie": {"one: methods": 0, "two: taid": 1},
        "cannot tell": {"one: methods": 1, "two: taid": 0},
    }


def test_without_a_contrast_there_are_empty_bars():
    figure: Any = verdicts_by_question(pd.DataFrame([], columns=COLUMNS))
    assert all(len(bar.x) == 0 for bar in figure.data)
