"""The held-out items on which two arms differ most, by any scorer."""

from studykit.findings import items_apart

LINES = {  # item: scores of sft and kd
    "a": (0.0, 1.0),
    "b": (1.0, 1.0),
    "c": (0.75, 0.5),
    "d": (1.0, 0.0),
}


def arm(number, score="chrf"):
    return [
        {
            "id": key,
            "prompt": f"ask {key}",
            "reference": key,
            "answer": f"{number}{key}",
            "scores": {score: pair[number]},
        }
        for key, pair in LINES.items()
    ]


def test_items_are_ordered_by_the_difference_of_their_scores():
    table = items_apart({"sft": arm(0), "kd": arm(1)}, "chrf")
    assert table["prompt"].tolist() == ["ask a", "ask d", "ask c"]
    assert list(table) == ["prompt", "reference", "sft", "kd", "sft chrf", "kd chrf"]
    assert table.iloc[2].tolist() == ["ask c", "c", "0c", "1c", 0.75, 0.5]
    assert len(items_apart({"sft": arm(0), "kd": arm(1)}, "chrf", count=2)) == 2


def test_what_only_one_arm_has_is_left_out():
    assert items_apart({"sft": arm(0), "kd": arm(1, "nll")}, "chrf").empty
    assert items_apart({"sft": arm(0), "kd": arm(1)[:1]}, "chrf")["prompt"].tolist() == ["ask a"]
    assert items_apart({"sft": arm(0), "kd": arm(0)}, "chrf").empty
