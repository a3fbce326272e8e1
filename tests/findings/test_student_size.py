"""Gain by student, on numbers that are known beforehand."""

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from contrast_rows import frame_of, runs

from studykit import results
from studykit.figures import draw
from studykit.findings.student_size import student_size


def student(name, sft, kd):
    return [
        *runs("sft", sft, student=name, inputs=f"{name}"),
        *runs("kd", kd, student=name, inputs=f"{name}+", teacher="a", teacher_exact_match=0.5, train_s=3.0),
    ]


@pytest.fixture
def frame():
    return frame_of(
        student("large", [30.0, 32.0, 34.0], [33.0, 34.0, 35.0]),  # 3, 2, 1
        student("small", [10.0, 12.0, 14.0], [15.0, 16.0, 17.0]),  # 5, 4, 3
    )


def test_each_student_is_compared_with_itself_weakest_first(frame):
    table = student_size(frame).table
    assert table[["student", "arm"]].values.tolist() == [
        ["small", "sft"],
        ["small", "kd"],
        ["large", "sft"],
        ["large", "kd"],
    ]
    gains = table[table["arm"] == "kd"].set_index("student")
    assert gains["score - sft"].to_dict() == {"small": "+4.0 [+1.5, +6.5]", "large": "+2.0 [-0.5, +4.5]"}
    assert gains["gap"].to_dict() == {"small": "+38.0", "large": "+18.0"}
    assert gains["seconds"].tolist() == [3, 3]


def test_the_sentence_says_how_much_more_the_weakest_gains_than_the_strongest(frame):
    finding = student_size(frame)
    assert "small +4.0 [+1.5, +6.5] points, n = 3 seeds: " in finding.sentence
    # 5 - 3, 4 - 2, 3 - 1
    assert "The weakest student's gain minus the strongest's: +2.0 [+2.0, +2.0] points" in finding.sentence
    assert finding.verdicts["small - large at 500 examples"].word == "helps"


def test_where_records_know_the_sizes_the_smallest_comes_first_however_well_it_does(frame, tmp_path, monkeypatch):
    sizes = {"small": 900, "large": 100}  # the weaker one is the larger
    by_run = {row.run_id: sizes[row.student] for row in frame.itertuples()}

    def read(run):
        return SimpleNamespace(parameters={"total": by_run[run]})

    monkeypatch.setattr(results, "find_run", lambda folder, run: run)
    monkeypatch.setattr(results, "read_item_scores", lambda folder, evaluation: pd.DataFrame())
    monkeypatch.setattr(results, "read_record", read)
    finding = student_size(frame, folder=tmp_path)
    assert "The smallest student's gain minus the largest's: -2.0 [-2.0, -2.0] points" in finding.sentence
    assert finding.verdicts["large - small at 500 examples"].word == "hurts"
    monkeypatch.setattr(results, "read_record", lambda folder: None)
    assert "small - large at 500 examples" in student_size(frame, folder=tmp_path).verdicts


def test_two_teachers_are_refused(frame):
    with pytest.raises(ValueError, match="compares one teacher, the table holds a, b"):
        student_size(frame_of(frame.to_dict("records"), runs("kd", [1.0], teacher="b", student="small")))


def test_a_margin_of_ones_own_makes_a_tie_of_what_it_holds(frame):
    assert student_size(frame, tie=7.0).verdicts["kd at 500 examples, student small"].word == "tie"
    assert student_size(frame, tie=6.0).verdicts["kd at 500 examples, student small"].word != "tie"


def test_its_figure_names_the_students_wherever_it_is_drawn(frame):
    figure: Any = draw("gain_against_gap", student_size(frame), frame)
    points, *students = [trace for trace in figure.data if trace.mode == "markers"]
    assert points.name == "kd, 500 examples"
    assert sorted(student.name for student in students) == ["large", "small"]
    assert sorted(points.marker.symbol) == sorted(student.marker.symbol for student in students)
