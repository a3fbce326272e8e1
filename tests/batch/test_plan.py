"""What a batch file plans: which cells, in which order, and what is refused before anything is written."""

import pytest
from fake_notebooks import everything_under, write_batch, write_notebook

from studykit.batch.grid import plan
from studykit.errors import InputError


def test_the_first_parameter_varies_slowest(tmp_path):
    write_notebook(tmp_path, "01_fake")
    grid = {"number": [1, 2], "rate": [0.1, 0.2], "study": "other"}
    write_batch(tmp_path, "fake", [{"notebook": "01_fake.ipynb", "grid": grid}])
    cells = plan("fake", folder=tmp_path, results_root=tmp_path / "results", overrides={"rate": [1, 2.5]})
    assert [(c.parameters["number"], c.parameters["rate"]) for c in cells] == [(1, 1), (1, 2.5), (2, 1), (2, 2.5)]
    assert {c.study_folder for c in cells} == {tmp_path / "results" / "other"}
    assert cells[0].parameters["tasks"] == ["one"]


def test_parameters_that_go_together_take_their_values_side_by_side(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_fake")
    grid = {"number": [1, 2], "tasks": [["a"], ["b"]], "rate": [0.1, 0.2]}
    file = write_batch(
        tmp_path / "notebooks", "any", [{"notebook": "01_fake", "grid": grid, "together": ["rate", "number"]}]
    )
    where = {"folder": tmp_path / "notebooks", "results_root": tmp_path / "results"}

    def planned(**overrides):
        cells = plan(str(file), **where, overrides=overrides)
        return [tuple(cell.parameters[name] for name in grid) for cell in cells]

    assert planned() == [(1, ["a"], 0.1), (1, ["b"], 0.1), (2, ["a"], 0.2), (2, ["b"], 0.2)]
    assert planned(rate=0.5, tasks=[["c"]]) == [(1, ["c"], 0.5), (2, ["c"], 0.5)]  # one value goes with all
    with pytest.raises(InputError, match="need equally many values: rate has 3, number has 2"):
        planned(rate=[0.1, 0.2, 0.3])


def test_equal_cells_of_a_grid_are_one_cell(tmp_path):
    write_notebook(tmp_path, "01_fake")
    write_batch(tmp_path, "fake", [{"notebook": "01_fake", "grid": {"number": [1, 1]}}, {"notebook": "01_fake"}])
    assert len(plan("fake", folder=tmp_path, overrides={"number": 1})) == 1


GOOD = [{"notebook": "01_fake", "grid": {"number": [1]}}]
BAD = {
    "unknown notebook '01_fak'; did you mean '01_fake'": [{"notebook": "01_fak"}],
    "unknown parameter 'numbr'; did you mean 'number'": [{"notebook": "01_fake", "grid": {"numbr": [1]}}],
    "'number' is 0 by default, received 'one'": [{"notebook": "01_fake", "grid": {"number": ["one"]}}],
    "'number' is 0 by default, received True": [{"notebook": "01_fake", "grid": {"number": [True]}}],
    "'rate' is 0.5 by default, received nan": "[{notebook: 01_fake, grid: {rate: .nan}}]",
    "'number' has no values": [{"notebook": "01_fake", "grid": {"number": []}}],
    "study name '../up' must be a plain folder name": [{"notebook": "01_fake", "grid": {"study": "../up"}}],
    "study name '' must be": [{"notebook": "01_fake", "grid": {"study": ""}}],
    "cannot read batch": "[{notebook: 01_fake, grid: {number: [1}]",
    "together: unknown parameter of the grid 'rat'; known: number": [{**GOOD[0], "together": ["rat"]}],
    "is not a studykit study": [{"notebook": "01_fake", "grid": {"study": "foreign"}}],
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_grid_is_refused_in_one_line_before_anything_is_written(tmp_path, message):
    write_notebook(tmp_path / "notebooks", "01_fake")
    write_batch(tmp_path / "notebooks", "bad", BAD[message])
    (tmp_path / "results" / "foreign").mkdir(parents=True)
    (tmp_path / "results" / "foreign" / "thesis.txt").write_text("not ours")
    before = everything_under(tmp_path)
    with pytest.raises(InputError) as refused:
        plan("bad", folder=tmp_path / "notebooks", results_root=tmp_path / "results")
    assert "\n" not in str(refused.value)
    assert message in str(refused.value)
    assert everything_under(tmp_path) == before


def test_numbers_of_a_grid_are_those_of_yaml_1_2(tmp_path):
    write_notebook(tmp_path, "01_fake")
    write_batch(tmp_path, "fake", "[{notebook: 01_fake, grid: {rate: [1e-5, 010], nothing: [no, 2026-01-01]}}]")
    cells = plan("fake", folder=tmp_path, results_root=tmp_path / "results")
    assert [cell.parameters["rate"] for cell in cells] == [1e-5, 1e-5, 10, 10]
    assert [cell.parameters["nothing"] for cell in cells[:2]] == ["no", "2026-01-01"]


@pytest.mark.parametrize(
    "parameters", ["number = 0\nresults = '.'", "number = 0\nstudy = 'x'", "study = 3\nresults = ''"]
)
def test_a_notebook_that_cannot_say_where_its_results_go_is_refused(tmp_path, parameters):
    write_notebook(tmp_path, "01_fake", parameters=parameters)
    write_batch(tmp_path, "fake", [{"notebook": "01_fake"}])
    with pytest.raises(InputError, match=r"needs its parameter '(study|results)'"):
        plan("fake", folder=tmp_path, results_root=tmp_path / "results")


def test_results_that_are_a_file_are_refused(tmp_path):
    write_notebook(tmp_path, "01_fake")
    write_batch(tmp_path, "fake", GOOD)
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        plan("fake", folder=tmp_path, results_root=tmp_path / "taken")
