"""What runs cost, beside their scores."""

import pandas as pd

from studykit.findings import markdown_table, pareto_front, with_costs
from studykit.findings._costs import cost_cells, costs_side_by_side, without_unused


def test_what_selected_and_what_was_written_counts_for_the_teacher():
    runs = pd.DataFrame({"teacher_tokens": [100.0, None, 5.0], "scored_tokens": [None, None, 7.0]})
    written = pd.DataFrame({"synthetic_tokens": [None, 3.0, None], "cached_synthetic_tokens": [4.0, None, None]})
    found = with_costs(runs.join(written))
    assert found["teacher_reads"].tolist() == [100.0, 0.0, 12.0]
    assert found["written_tokens"].tolist() == [4.0, 3.0, 0.0]
    assert found["generated_tokens"].tolist() == [0.0, 0.0, 0.0]


def test_a_table_leaves_out_what_nothing_cost():
    rows = [{"arm": "sft", **cost_cells({"train_s": 3.4})}, {"arm": "kd", **cost_cells({"teacher_reads": 8_000.0})}]
    rows[0] |= {"generated": 0}
    table = without_unused(pd.DataFrame(rows))
    assert table.columns.tolist() == ["arm", "seconds", "teacher reads"]
    assert table.fillna(-1)["teacher reads"].tolist() == [-1, 8_000]  # not measured is not 0
    assert markdown_table(table).splitlines()[2:] == ["| sft | 3 |  |", "| kd |  | 8,000 |"]


def test_settings_that_share_a_row_share_the_column_of_an_equal_cost():
    sft = {"student_tokens": 90.0, "train_s": 2.0, "peak_mem_gib": 1.234}
    kd = sft | {"teacher_reads": 50.0, "train_s": 6.0}
    table = costs_side_by_side({"sft": [sft], "kd": [kd]})
    assert table.to_dict("records") == [
        {"sft seconds": 2, "kd seconds": 6, "student reads": 90, "kd teacher reads": 50, "GiB": 1.23}
    ]
    assert costs_side_by_side({"sft": [], "kd": []}).empty


def test_what_costs_nothing_is_on_the_front_before_all_that_is_not_better():
    kd, worse, better = (0.0, -14.0), (6_000.0, -13.0), (180_000.0, -20.0)
    assert pareto_front([better, worse, kd]) == [2, 0]
    assert pareto_front([]) == []
