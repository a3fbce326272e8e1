"""The check before a batch knows the trials of tunings: they are checked, estimated, and shared between cells."""

from importlib import import_module
from pathlib import Path

import pytest

from studykit import study
from studykit.batch import preflight
from studykit.errors import InputError
from studykit.spec import RunSpec


@pytest.fixture
def cells(plain_spec, stage, tmp_path, monkeypatch):
    """Make cells of several seeds whose two arms are tuned."""
    evaluation = {"data": stage()["data"] | {"split": "test", "budget": {}}, "items": 6, "scorers": ["nll"]}

    def arms(notebook, parameters):
        one = stage()
        data = one["data"] | {"budget": {"examples": 24, "seed": parameters["seed"]}}
        shared = {"evaluation": evaluation, "seed": parameters["seed"], "teacher": False}
        return {
            "sft": plain_spec(one | {"data": data}, **shared),
            "long": plain_spec(one | {"data": data, "warmup_ratio": 0.1}, **shared),
        }

    monkeypatch.setattr(preflight, "arms_of", arms)
    for module in ("trials", "tune"):  # the file has one split
        monkeypatch.setattr(import_module(f"studykit.study.{module}"), "check_apart", lambda *given: None)

    def make(*seeds, **more):
        shared = {"results": str(tmp_path), "study": "s", "tune": {"learning_rate": [0.01, 0.02], "steps": [3, 6]}}
        shared |= {"tune_items": None, "tune_split": "validation", "keep": "none"} | more
        return [{"notebook": "any", "parameters": shared | {"seed": seed}} for seed in seeds]

    return make


def test_trials_are_counted_once_for_all_seeds(cells):
    checked = preflight.check(cells(0, 1))
    assert "tuning: 4 trials for each of 2 arms, and more where a grid is widened" in checked["lines"]
    first, second = checked["estimates"]
    assert (first["runs"], first["trials"], first["runs_there"]) == (2, 8, 0)
    assert (second["runs"], second["trials"], second["runs_there"]) == (2, 0, 8)
    assert first["tuning_s"] > 0
    assert first["seconds"] > second["seconds"]
    assert first["student_tokens"] > second["student_tokens"]


def test_trials_that_widening_may_add_are_counted_once_and_apart(cells):
    plain, _ = preflight.check(cells(0, 1, tune={"learning_rate": {"times": [0.5, 1]}}))["estimates"]
    first, second = preflight.check(cells(0, 1))["estimates"]
    assert (plain["further_trials"], plain["trials"]) == (4, 4)  # one value more at either end, for two arms
    # steps 3 and 6 become 12 as well, and no half of 3: twelve points instead of four for each arm
    assert (first["further_trials"], second["further_trials"]) == (16, 0)
    assert first["further_s"] > first["tuning_s"] > 0
    assert first["seconds"] - first["tuning_s"] == pytest.approx(second["seconds"], rel=0.5)


def test_what_is_on_disk_is_not_counted(cells, tmp_path):
    [cell] = cells(0)
    arms = preflight.arms_of(Path("any"), cell["parameters"])
    options = {"study": "s", "root": tmp_path, "validation": {"split": "validation", "items": None}}
    tuned = study.tune(arms, {"learning_rate": [0.01, 0.02]}, **options)
    done = sum(len(record.trials) for record in tuned.records.values()) - sum(
        trial.widened for record in tuned.records.values() for trial in record.trials
    )
    cell["parameters"]["tune"] = {"learning_rate": [0.01, 0.02]}
    [estimate] = preflight.check([cell])["estimates"]
    assert (estimate["trials"], estimate["runs_there"]) == (0, done)
    study.compare({arm: RunSpec.parse(spec) for arm, spec in arms.items()}, study="s", root=tmp_path, keep="none")
    [estimate] = preflight.check([cell])["estimates"]
    assert (estimate["runs"], estimate["runs_there"]) == (2, done)  # which values the arms get is still open
    cell["parameters"]["tune"] = {}
    [estimate] = preflight.check([cell])["estimates"]
    assert (estimate["runs"], estimate["runs_there"]) == (0, 2)


@pytest.mark.parametrize(
    ("tune", "complaint"),
    [
        ({"lerning_rate": [0.1]}, "unknown name 'lerning_rate'; did you mean 'learning_rate'"),
        ({"learning_rate": []}, "has no values"),
        ({"learning_rate": [0.1], "sft": {"learning_rate": [0.1, 0.2]}}, "the same number of trials"),
        ({"learning_rate": [0.1, -0.1]}, "learning_rate"),
    ],
)
def test_a_wrong_space_is_refused_before_a_batch(cells, tune, complaint):
    with pytest.raises(InputError, match=complaint):
        preflight.check(cells(0, tune=tune))


def test_a_seed_that_is_reported_is_refused_before_a_batch(cells):
    with pytest.raises(InputError, match="seed 1 is the seed of arm sft"):
        preflight.check(cells(0, 1, tune_seeds=[1]))
