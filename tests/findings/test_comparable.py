"""Which rows of a study a notebook may put beside its own."""

import pandas as pd

from studykit.findings import comparable

RUN = {"student": "small", "teacher": "large", "learning_rate": 1.0, "budget_examples": 500, "steps": 300}


def kept(**changes):
    """Whether a row with these changes is comparable with a run."""
    return len(comparable(pd.DataFrame([RUN | changes]), pd.DataFrame([RUN, RUN | {"teacher": None}]))) == 1


def test_another_budget_may_have_its_own_steps_and_the_same_may_not():
    assert kept()
    assert kept(budget_examples=1500, steps=406)
    assert not kept(steps=100)


def test_other_students_teachers_and_options_are_left_out_and_runs_without_a_teacher_stay():
    assert not kept(student="medium")
    assert not kept(teacher="larger")
    assert not kept(learning_rate=2.0)
    assert kept(teacher=None)


def test_a_factor_may_vary_and_with_it_the_hash_of_models_and_data():
    runs = pd.DataFrame([RUN | {"inputs": "a"}])
    frame = pd.DataFrame(
        [RUN | {"inputs": "b"} | change for change in ({}, {"student": "medium"}, {"teacher": "larger"})]
    )
    assert comparable(frame, runs).empty
    assert comparable(frame, runs, vary=["student"])["student"].tolist() == ["small", "medium"]


def test_an_arm_of_another_method_is_left_out_also_where_its_options_are_those_of_an_arm():
    frame = pd.DataFrame([RUN | {"method": name} for name in ("sft", "kd", "reverse_kd")])
    assert comparable(frame, frame[:2])["method"].tolist() == ["sft", "kd"]
