"""A student of one mode covers a teacher of two under forward KL and seeks the larger one under reverse KL."""

from typing import Any

import pytest

from studykit.figures.mode_covering import mode_covering, nearest_student, two_modes


def test_forward_kl_matches_the_moments_of_the_teacher():
    mean, spread = nearest_student(two_modes(0.75, 4.0), 0.0)
    # modes at -2 and 2: mean -2 * 0.75 + 2 * 0.25, variance 1 + 4 - 1
    assert mean == pytest.approx(-1.0, abs=0.01)
    assert spread == pytest.approx(2.0, abs=0.01)


def test_reverse_kl_takes_the_larger_mode():
    mean, spread = nearest_student(two_modes(0.75, 8.0), 1.0)
    assert mean == pytest.approx(-4.0, abs=0.05)
    assert spread == pytest.approx(1.0, abs=0.05)


def test_there_is_a_panel_with_both_curves_for_each_divergence():
    figure: Any = mode_covering()
    assert [trace.name for trace in figure.data] == ["teacher", "student"] * 3
    assert [note.text for note in figure.layout.annotations] == [
        "beta = 0: forward KL",
        "beta = 0.5",
        "beta = 1: reverse KL",
    ]
    one: Any = mode_covering(0.3, weight=0.5, distance=2.0)
    assert len(one.data) == 2
