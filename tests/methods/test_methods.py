"""Every method found by discovery is described, refuses what it does not know, learns, and learns the same again."""

import pytest
from safetensors.torch import load_file

from studykit import results, study
from studykit.errors import InputError
from studykit.methods import METHODS, get_method

NAMES = METHODS.names()


@pytest.mark.parametrize("name", NAMES)
def test_is_described_in_one_line(name):
    assert len(METHODS.describe(name)) > 20


@pytest.mark.parametrize("name", NAMES)
def test_refuses_an_unknown_option(name):
    with pytest.raises(InputError, match="unknown option 'temprature'"):
        get_method(name, temprature=2.0)


@pytest.mark.parametrize(("option", "value"), [("kd_ratio", 1.5), ("temperature", 0.0)])
def test_refuses_options_out_of_range(option, value):
    with pytest.raises(InputError, match=option):
        get_method("kd", **{option: value})


@pytest.mark.parametrize("name", NAMES)
def test_lowers_its_own_loss_and_gives_the_same_weights_again(name, tmp_path, plain_spec, stage):
    weights = []
    for root in ("first", "second"):
        spec = plain_spec(stage(method=name, steps=24, batch_size=12))
        run = study.run(spec, study="methods", root=tmp_path / root)
        folder = results.find_run(tmp_path / root, run["run_id"])
        weights.append(load_file(folder / "model" / "model.safetensors"))
    curve = results.read_metrics(folder)[0]
    column = "ce_loss" if name == "sft" else "kd_loss"

    assert curve[column].iloc[-3:].mean() < curve[column].iloc[:3].mean()
    assert all(weights[0][tensor].equal(weights[1][tensor]) for tensor in weights[0])


def test_sft_drops_the_teacher_so_that_it_is_one_run_beside_any(tmp_path, plain_spec):
    with_teacher, without = (study.pin(study.RunSpec.parse(plain_spec(teacher=t)), tmp_path) for t in (True, False))

    assert with_teacher.run_id == without.run_id
