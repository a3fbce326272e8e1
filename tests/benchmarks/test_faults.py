"""Wrong input at random: no exception but `InputError` leaves the border, and its message is one short line."""

import logging
import os

import pytest

from benchmarks.faults import Counts, attempt, deep, try_files, try_specifications
from studykit.errors import InputError


@pytest.fixture(autouse=True)
def no_warnings():
    """Say nothing about keys that nothing reads."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_a_specification_is_accepted_or_refused_in_one_short_line(tmp_path):
    counts = try_specifications(100, seed=1, folder=tmp_path)
    assert not counts.faults
    assert counts.kinds["accepted"] > 5
    assert counts.kinds["refused"] > 40


def test_a_data_file_is_accepted_or_refused_in_one_short_line(tmp_path):
    counts = try_files(100, seed=1, folder=tmp_path)
    assert not counts.faults
    assert counts.kinds["accepted"] > 5
    assert counts.kinds["refused"] > 40


def fail(error):
    raise error


ENDINGS = {
    "refused": InputError("one short line"),
    "exception": ZeroDivisionError("no"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ending_is_counted_by_its_kind(ending):
    counts = Counts()
    attempt(lambda: fail(ENDINGS[ending]), counts, "an input")
    assert counts.kinds == {ending: 1}
    assert counts.wrong == (ending == "exception")


def test_an_input_without_an_end_is_interrupted_and_counted(monkeypatch):
    monkeypatch.setattr("benchmarks.faults._LIMIT_S", 0.01)
    counts = Counts()
    attempt(lambda: [None for _ in iter(int, 1)], counts, deep())
    assert counts.kinds == {"endless": 1}


def test_a_message_is_one_short_line_of_printable_characters():
    error = InputError(f"first\nsecond\x1b[2J \ud83d {'x' * 5000} the fix")
    assert len(str(error)) <= 400
    assert str(error).isprintable()
    assert str(error).startswith("first second\\x1b[2J \\ud83d xxx")
    assert str(error).endswith("xxx the fix")
    assert os.fsencode(str(error))
