"""Every shipped notebook reads as a section of a paper and can be run as a cell of a grid."""

import ast
import json
from pathlib import Path

import pandas as pd
import pytest
from fake_notebooks import trains, write_notebook

from studykit import results
from studykit.batch import notebooks
from studykit.batch.grid import plan
from studykit.errors import InputError
from studykit.scorers import metric
from studykit.spec import RunSpec

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BATCHES = sorted((ROOT / "notebooks" / "batches").glob("*.yaml"))
HEADINGS = ["Question", "Hypothesis", "Parameters", "Run", "Figure", "Finding", "Caveats"]
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_study = pytest.mark.parametrize("path", list(filter(trains, NOTEBOOKS)), ids=lambda path: path.stem)
every_batch = pytest.mark.parametrize("path", BATCHES, ids=lambda path: path.stem)


def cells_of(path, kind=None):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if kind in (None, cell["cell_type"])]


ONE_STEP = (
    (ROOT / "docs" / "one-step.md").read_text(encoding="utf-8").split("```python\n")[1].partition("```")[0].strip()
)


def code_of(path):
    """Return the code cells but for the step that docs/one-step.md explains, which is there to be read."""
    sources = ["".join(cell["source"]) for cell in cells_of(path, "code")]
    return [ast.parse(source) for source in sources if source != ONE_STEP]


def test_the_tour_has_the_step_that_the_docs_explain():
    sources = ["".join(cell["source"]) for cell in cells_of(ROOT / "notebooks" / "00_tour.ipynb", "code")]
    assert ONE_STEP in sources
    assert len(ONE_STEP.splitlines()) <= 40


def test_there_is_something_to_check():
    assert NOTEBOOKS
    assert BATCHES


@every_notebook
def test_it_is_named_by_number_and_what_varies(path):
    assert path.stem[:2].isdigit()
    assert path.stem[2] == "_"


@every_notebook
def test_it_is_stored_without_outputs_or_traces_of_a_run(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in cells_of(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    for part in (notebook, *notebook["cells"]):
        assert not {"papermill", "execution", "widgets", "collapsed"} & set(part["metadata"])
    assert "injected-parameters" not in path.read_text()
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


@every_notebook
def test_its_headings_stand_in_the_order_of_a_paper(path):
    lines = [line for cell in cells_of(path, "markdown") for line in "".join(cell["source"]).splitlines()]
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == HEADINGS
    assert sum(line.startswith("# ") for line in lines) == 1


@every_notebook
def test_its_hypothesis_holds_a_number(path):
    [text] = ["".join(c["source"]) for c in cells_of(path, "markdown") if "## Hypothesis" in "".join(c["source"])]
    assert any(character.isdigit() for character in text.partition("## Hypothesis")[2])


@every_notebook
def test_it_has_one_cell_of_parameters_and_one_of_arms(path):
    for tag in ("parameters", "arms"):
        assert notebooks.tagged_source(path, tag)
    tags = [tag for cell in cells_of(path) for tag in cell["metadata"].get("tags", [])]
    assert tags == ["parameters", "arms"]


@every_notebook
def test_its_parameters_are_scientific_nuisance_or_fixed(path):
    source = notebooks.tagged_source(path, "parameters")
    places = [source.index(f"# {kind}") for kind in ("Scientific:", "Nuisance:", "Fixed:")]
    assert places == sorted(places)


@every_notebook
def test_its_defaults_are_json_and_say_where_results_go(path):
    values = notebooks.defaults(path)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert isinstance(values["study"], str)
    assert values["results"] == "../results"


@every_notebook
def test_it_defines_and_trains_nothing_by_itself(path):
    forbidden = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.With, ast.Try)
    for tree in code_of(path):
        for node in ast.walk(tree):
            assert not isinstance(node, forbidden), (
                f"{path.name} has a {type(node).__name__}: it belongs in the package"
            )
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {name.partition(".")[0] for name in names} & {"torch", "transformers", "peft", "datasets"}


@every_notebook
def test_its_lines_fit_a_page(path):
    for cell in cells_of(path):
        assert max(map(len, "".join(cell["source"]).splitlines()), default=0) <= 125


@every_study
def test_its_arms_are_specifications_that_can_be_compared(path):
    arms = {name: RunSpec.parse(dict(arm)) for name, arm in notebooks.arms_of(path, {}).items()}
    assert len(arms) >= 2
    assert len({spec.run_id for spec in arms.values()}) == len(arms)
    for shared in (
        lambda spec: spec.student,
        lambda spec: spec.seed,
        lambda spec: spec.evaluation,
        lambda spec: sum(stage.steps for stage in spec.stages),
    ):
        assert len({repr(shared(spec)) for spec in arms.values()}) == 1


@every_study
def test_any_other_field_of_a_specification_reaches_all_its_arms(path):
    given = {
        "student_options": {"attn_implementation": "sdpa"},
        "teacher_options": {"attn_implementation": "eager", "engine": "vllm"},
        "training_options": {"gradient_checkpointing": True, "padding_free": True, "batch_size": 3},
        "evaluation_options": {"scorers": ["nll"], "batch_size": 5},
        "sampler": "teacher_nll",
        "sampler_options": {"teacher": "lexicon/teacher-a", "share": 0.25},
    }
    parameters = notebooks.check_parameters(path, given)
    specs = [RunSpec.parse(dict(arm)) for arm in notebooks.arms_of(path, parameters).values()]
    for spec in specs:
        assert spec.student.attn_implementation == "sdpa"
        assert all(
            stage.gradient_checkpointing and stage.padding_free and stage.batch_size == 3 for stage in spec.stages
        )
        [evaluation] = spec.evaluation
        assert (evaluation.scorers, evaluation.batch_size) == (("nll",), 5)
        assert all(stage.data.budget.options == given["sampler_options"] for stage in spec.stages)
    taught = [spec.teacher for spec in specs if spec.teacher is not None]
    assert taught
    assert all((teacher.attn_implementation, teacher.engine) == ("eager", "vllm") for teacher in taught)


@every_batch
def test_a_shipped_batch_plans_and_all_its_arms_are_specifications(path, tmp_path):
    cells = plan(path.stem, folder=ROOT / "notebooks", results_root=tmp_path)
    assert len({cell.cell_id for cell in cells}) == len(cells)
    ids = [
        (cell.notebook, RunSpec.parse(dict(arm)).run_id)
        for cell in cells
        for arm in notebooks.arms_of(cell.notebook, cell.parameters).values()
    ]
    assert len(cells) > 1 or not ids, "a batch that trains has several cells"
    assert len(set(ids)) == len(ids), "two cells of one question would train the same run"
    assert list(tmp_path.iterdir()) == []


def test_the_quickstart_spans_two_decades_and_three_seeds(tmp_path):
    cells = plan("quickstart", folder=ROOT / "notebooks", results_root=tmp_path)
    budgets = {cell.parameters["budget_examples"] for cell in cells}
    assert len(budgets) >= 5
    assert max(budgets) / min(budgets) >= 80  # the pool of 40,000 words is the largest budget
    assert {cell.parameters["seed"] for cell in cells} == {0, 1, 2}
    assert len(cells) == 3 * len(budgets)


def test_given_parameters_take_the_place_of_defaults(tmp_path):
    path = write_notebook(tmp_path, "01_fake")
    given = {"number": 3, "rate": 2, "nothing": [1], "options": {"a": {"b": None}}, "flag": True}
    assert notebooks.check_parameters(path, given) == notebooks.defaults(path) | given
    assert notebooks.check_parameters(path, {}) == notebooks.defaults(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"numbr": 1}, "unknown parameter 'numbr'; did you mean 'number'"),
        ({"number": "1"}, "parameter 'number' is 0 by default, received '1' (str)"),
        ({"number": 1.5}, "received 1.5 (float)"),
        ({"number": True}, "received True (bool)"),
        ({"flag": 1}, "parameter 'flag' is False by default, received 1 (int)"),
        ({"rate": "fast"}, "received 'fast' (str)"),
        ({"rate": float("nan")}, "received nan (float)"),
        ({"tasks": ("one",)}, "received ('one',) (tuple)"),
        ({"tasks": [{1, 2}]}, "received [{1, 2}] (list)"),
        ({"options": {1: 2}}, "received {1: 2} (dict)"),
        ({"study": ["a"]}, "received ['a'] (list)"),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_line(tmp_path, given, message):
    path = write_notebook(tmp_path, "01_fake")
    with pytest.raises(InputError) as refused:
        notebooks.check_parameters(path, given)
    assert message in str(refused.value)
    assert str(refused.value).startswith("notebook 01_fake: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "parameters",
    [
        "x: int | None = None",  # invisible to papermill
        "a, b = 1, 2",
        "a = print()",
        "a = (1, 2)",  # would arrive as text
        "a = 1e999",
        "a = {1: 2}",
        "if True:\n    a = 1",
        "a = ",
    ],
)
def test_parameters_that_are_no_plain_assignments_of_json_are_refused(tmp_path, parameters):
    path = write_notebook(tmp_path, "01_fake", parameters=parameters)
    with pytest.raises(InputError, match=r"01_fake\.ipynb: (its parameters cell|parameter)"):
        notebooks.defaults(path)


def test_a_notebook_needs_exactly_one_tagged_cell(tmp_path):
    path = write_notebook(tmp_path, "01_fake")
    content = json.loads(path.read_text())
    content["cells"].append(dict(content["cells"][1], id="copy"))
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="exactly one code cell tagged 'parameters', it has 2"):
        notebooks.defaults(path)
    path.write_text(json.dumps(content | {"cells": content["cells"][:2]}))
    with pytest.raises(InputError, match="exactly one code cell tagged 'arms', it has 0"):
        notebooks.arms_of(path, {})


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"nbformat": 4, "nbformat_minor": 5}'])
def test_what_is_no_notebook_is_refused(tmp_path, text):
    (tmp_path / "01_fake.ipynb").write_text(text)
    with pytest.raises(InputError, match="is not a readable notebook"):
        notebooks.defaults(tmp_path / "01_fake.ipynb")


def test_notebooks_are_found_with_or_without_their_ending(tmp_path):
    path = write_notebook(tmp_path, "01_fake")
    assert notebooks.find_notebook(tmp_path, "01_fake") == notebooks.find_notebook(tmp_path, "01_fake.ipynb") == path
    for name in ("01_fak", "../01_fake"):
        with pytest.raises(InputError, match="did you mean '01_fake'"):
            notebooks.find_notebook(tmp_path, name)


@pytest.mark.parametrize(("primary_metric", "best"), [("exact_match", "b"), ("nll", "a")])
def test_the_table_of_methods_has_the_best_first(primary_metric, best):
    lines = next(
        tree.body for tree in code_of(ROOT / "notebooks" / "02_methods.ipynb") if "sort_values" in ast.unparse(tree)
    )
    names = {
        "metric": metric,
        "store": results,
        "primary_metric": primary_metric,
        "scores": ["exact_match", "nll"],
        "cost": [],
    }
    names["runs"] = pd.DataFrame({"arm": ["a", "b"], "exact_match": [0.1, 0.2], "nll": [1.0, 2.0]})
    for line in lines[-3:-1]:
        exec(ast.unparse(line), names)
    assert eval(ast.unparse(lines[-1]), names)["arm"].iloc[0] == best


def test_the_hypothesis_is_hashed_by_its_text_alone(tmp_path):
    path = tmp_path / "01_a.ipynb"

    def written(text, other):
        cells = [
            ("# A\n\n## Question\n" + other, "markdown"),
            (f"## Hypothesis\n\n{text}", "markdown"),
            ("x = 1", "code"),
        ]
        cells.append(("## Parameters\n" + other, "markdown"))
        plain = [{"cell_type": kind, "source": [source], "metadata": {}} for source, kind in cells]
        path.write_text(json.dumps({"nbformat": 4, "cells": plain}))
        found = notebooks.hypothesis_of(path)
        return found and found.sha256

    assert written("KD gains 2 points.", "a") == written("KD gains 2 points.", "b")
    assert written("KD gains 2 points.", "a") != written("KD gains 3 points.", "a")
    assert written("", "a") is None


@pytest.mark.parametrize("study", results.studies(ROOT / "results"), ids=lambda study: study.name)
def test_the_hypotheses_of_committed_studies_are_not_changed_afterwards(study):
    for spec in (cell.spec for cell in results.cells(study)):
        assert spec
        assert spec.hypothesis
        today = notebooks.hypothesis_of(ROOT / "notebooks" / f"{spec.notebook}.ipynb")
        assert today
        assert spec.hypothesis.sha256 == today.sha256, spec.notebook
