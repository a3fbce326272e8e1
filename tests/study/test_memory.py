"""Peak memory is that of the run: the larger one before it does not count."""

import numpy as np
import pytest

from studykit import study
from studykit.study import memory
from studykit.study.memory import PeakMemory

MIB = 1 / 1024


def fill(mib):
    """Use that much memory and give it back."""
    return float(np.ones(mib * 2**17).sum())


def test_what_is_used_counts_and_what_was_used_before_does_not():
    before = PeakMemory().gib()
    fill(600)
    peak = PeakMemory()
    fill(200)
    found = peak.gib()
    assert before is not None
    assert found is not None
    assert before + 150 * MIB < found < before + 400 * MIB


def test_a_run_after_a_larger_one_reports_its_own(plain_spec, tmp_path):
    before = PeakMemory().gib()
    fill(800)
    row = study.run(plain_spec(teacher=False), root=tmp_path)
    assert before is not None
    assert row["peak_mem_gib"] < before + 500 * MIB


@pytest.fixture
def without_reset(tmp_path, monkeypatch):
    """A system that keeps one record for the whole process."""
    monkeypatch.setattr(memory, "_PROCESS", tmp_path)


def test_without_a_reset_a_smaller_peak_is_missing_and_a_larger_one_known(without_reset, monkeypatch):
    peaks = iter([3 * 2**30, 3 * 2**30, 3 * 2**30, 4 * 2**30])
    monkeypatch.setattr(memory, "_peak_of_process", lambda: next(peaks))
    assert PeakMemory().gib() is None
    assert PeakMemory().gib() == 4.0
