"""A batch file is read by YAML 1.2, and anything but a list of notebooks and grids is refused."""

import math

import pytest
import yaml
from fake_notebooks import write_batch

from studykit.batch.batch_files import CoreLoader, read_batch
from studykit.errors import InputError

NUMBERS = {
    "1e-5": 1e-5,
    "1E5": 1e5,
    "-2.5e+3": -2500.0,
    ".5": 0.5,
    "5.": 5.0,
    "3.0": 3.0,
    "010": 10,
    "0o10": 8,
    "0x1F": 31,
    "+12": 12,
    "-0": 0,
    "-.inf": -math.inf,
}
TEXTS = [
    "yes",
    "no",
    "on",
    "off",
    "y",
    "2026-01-01",
    "1_000",
    "1:30",
    "0b11",
    "0x",
    "1e",
    "e5",
    "<<",
    "=",
    "'1e-5'",
    '"3"',
]


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_is_a_number(text):
    value = yaml.load(text, CoreLoader)
    assert value == NUMBERS[text]
    assert type(value) is type(NUMBERS[text])


@pytest.mark.parametrize("text", TEXTS)
def test_anything_else_is_a_text(text):
    assert yaml.load(text, CoreLoader) == text.strip("'\"")


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "false", "False", "FALSE"])
def test_truth_has_two_names(text):
    assert yaml.load(text, CoreLoader) is (text.lower() == "true")


@pytest.mark.parametrize("text", ["null", "Null", "~", ""])
def test_nothing_is_none(text):
    assert yaml.load(f"a: {text}", CoreLoader) == {"a": None}


def test_not_a_number_is_read_so_that_it_can_be_refused():
    assert math.isnan(yaml.load(".nan", CoreLoader))


def test_other_loaders_are_as_before():
    assert yaml.safe_load("yes") is True


def test_a_tag_makes_no_object():
    with pytest.raises(yaml.YAMLError):
        yaml.load("!!python/object/apply:os.getcwd []", CoreLoader)


def test_a_file_is_found_by_name_or_path(tmp_path):
    file = write_batch(tmp_path, "rates", "- notebook: 01_fake\n  grid: {rate: [1e-5, 0.1], flag: true}\n")
    entries = [{"notebook": "01_fake", "grid": {"rate": [1e-5, 0.1], "flag": True}}]
    assert read_batch("rates", tmp_path) == read_batch(str(file), tmp_path / "elsewhere") == entries


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    write_batch(tmp_path, "quickstart", [{"notebook": "01_fake"}])
    with pytest.raises(InputError, match="unknown batch 'quikstart'; did you mean 'quickstart'"):
        read_batch("quikstart", tmp_path)
    with pytest.raises(InputError, match="cannot read batch"):
        read_batch("missing.yaml", tmp_path)


BAD = {
    "unknown key 'gird'; did you mean 'grid'": [{"notebook": "01_fake", "gird": {}}],
    "must be a list of {notebook, grid": {"notebook": "01_fake"},
    "must be a list of {notebook, grid: ": [{"notebook": 1}],
    "must be a list of {notebook, grid: {": [{"notebook": "01_fake", "grid": ["number"]}],
    "must be a list of {notebook, grid: {pa": [{"notebook": "01_fake", "together": "number"}],
    "must be a list of {notebook, grid: {p": "- notebook: 01_fake\n  grid: {1: [2]}",
    "must be a list": "",
    "cannot read batch": "[{notebook: 01_fake, grid: {number: [1}]",
}


LAUGHS = "".join(f"- &a{n} [{', '.join([f'*a{n - 1}' if n else 'ha'] * 9)}]\n" for n in range(9))
BAD |= {
    "found character '\\t' that cannot start any token (line 2, column 1)": "- notebook: 01_fake\n\tgrid: {}",
    "the key 'rate' is given twice (line 3, column 10)": "- notebook: 01_fake\n  grid: {rate: 1,\n         rate: 2}",
    "the key 'grid' is given twice (line 3, column 3)": "- notebook: 01_fake\n  grid: {}\n  grid: {rate: 1}",
    "more than 100,000 values": LAUGHS,
    "an alias stands inside what it names": "- &a\n  notebook: 01_fake\n  grid: {rate: *a}",
    "found undefined alias 'a' (line 2, column 16)": "- notebook: 01_fake\n  grid: {rate: *a}",
    "but found another document (line 2, column 1)": "- notebook: a\n---\n- notebook: b",
    "cannot read batch ": "[" * 5000,
    "found unhashable key": "- notebook: 01_fake\n  grid: {[1]: 2}",
    "could not determine a constructor": "- notebook: !!python/name:os.system 01_fake",
    "unacceptable character #x0000": "- notebook: \0",
    "Exceeds the limit": "- notebook: 01_fake\n  grid: {rate: " + "9" * 5000 + "}",
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_batch_is_refused_in_one_line(tmp_path, message):
    write_batch(tmp_path, "bad", BAD[message])
    with pytest.raises(InputError) as refused:
        read_batch("bad", tmp_path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_aliases_and_a_byte_order_mark_are_read(tmp_path):
    write_batch(tmp_path, "twice", "\ufeff- notebook: 01_fake\n  grid: {rate: &rates [1e-5, 2e-5], other: *rates}\n")
    (entry,) = read_batch("twice", tmp_path)
    assert entry["grid"] == {"rate": [1e-5, 2e-5], "other": [1e-5, 2e-5]}
