"""A seed is a whole number from 0 to 2^32 - 1, on the command line and in a batch file as in a specification."""

from pathlib import Path

import pytest
import yaml

from studykit.batch.batch_files import CoreLoader
from studykit.batch.cli import _assignments
from studykit.batch.notebooks import arms_of, check_parameters
from studykit.errors import InputError
from studykit.spec.values import MAX_SEED

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_data_size.ipynb"
READERS = {
    "command line": lambda text: _assignments([f"seed={text}"])["seed"],
    "batch file": lambda text: yaml.load(text, CoreLoader),
}
every_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


def seeds_of(seed):
    arms = arms_of(NOTEBOOK, check_parameters(NOTEBOOK, {"seed": seed})).values()
    return {arm["seed"] for arm in arms} | {arm["stages"][0]["data"]["budget"]["seed"] for arm in arms}


@every_reader
@pytest.mark.parametrize("seed", [0, 7, MAX_SEED])
def test_a_seed_that_fits_is_that_of_all_arms(seed, read):
    assert seeds_of(read(str(seed))) == {seed}


@every_reader
@pytest.mark.parametrize("text", ["-1", "true", "1.0", "1e2", '"1"', "one", str(2**32), "12345678901234567890", "[1]"])
def test_any_other_is_refused_in_one_line(text, read):
    with pytest.raises(InputError, match="seed") as caught:
        seeds_of(read(text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_seed_of_thousands_of_digits_is_refused_in_one_line():
    with pytest.raises(InputError, match="seed") as caught:
        seeds_of(READERS["command line"]("9" * 5000))
    assert len(str(caught.value)) < 200
