"""What stays of a run's weights, and what is refused before it trains."""

from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file

from studykit import study
from studykit.data import Inputs
from studykit.errors import InputError
from studykit.models.loading import load_student
from studykit.models.names import Models
from studykit.spec import RunSpec
from studykit.study import weights
from studykit.study.pin import pin
from studykit.study.weights import KEEP, check_keep

LORA = {"lora_r": 2, "lora_alpha": 4}


def files_of(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.safetensors"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, plain_spec):
    """Train a model with adapters and keep each kind of weights."""
    folders = {}
    for keep in KEEP:
        root = tmp_path_factory.mktemp(keep)
        row = study.run(plain_spec(teacher=False, lora=LORA), root=root, keep=keep)
        folders[keep] = root / "scratch" / "runs" / row["run_id"]
    return folders


def test_no_more_is_kept_than_was_chosen(runs):
    assert {keep: files_of(folder) for keep, folder in runs.items()} == {
        "none": [],
        "adapter": ["adapter/adapter_model.safetensors"],
        "bf16": ["adapter/adapter_model.safetensors", "model/model.safetensors"],
        "full": ["adapter/adapter_model.safetensors", "model/model.safetensors"],
    }


def test_it_is_no_part_of_the_identity(runs):
    assert len({folder.name for folder in runs.values()}) == 1


def test_half_the_bytes_are_the_same_weights_rounded(runs):
    half, full = (load_file(runs[keep] / "model" / "model.safetensors") for keep in ("bf16", "full"))
    assert half.keys() == full.keys()
    assert all(value.dtype == torch.bfloat16 for value in half.values())
    for name, value in full.items():
        torch.testing.assert_close(half[name], value.to(torch.bfloat16), rtol=0, atol=0)


@pytest.mark.parametrize("keep", KEEP)
def test_only_a_run_with_merged_weights_can_be_named_as_a_model(runs, keep):
    models = Models(runs[keep].parents[2])
    if keep in ("bf16", "full"):
        assert models.find(runs[keep].name).path == str(runs[keep] / "model")
    else:
        with pytest.raises(InputError, match="were not kept: remove its folder, and train it again with keep='bf16'"):
            models.find(runs[keep].name)


@pytest.fixture
def pinned(plain_spec, tmp_path):
    return pin(RunSpec.parse(plain_spec(teacher=False)), Inputs(tmp_path))


def test_an_unknown_kind_and_adapters_of_none_are_refused_before_training(plain_spec, tmp_path):
    for keep, message in (("half", "unknown keep 'half'"), ("adapter", "there are no adapters")):
        with pytest.raises(InputError, match=message):
            study.run(plain_spec(teacher=False), root=tmp_path, keep=keep)
    assert not list((tmp_path / "scratch" / "runs").glob("*"))


def test_a_full_disk_is_refused_with_what_fits(pinned, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    size = sum(p.numel() for p in load_student(pinned.spec.student, pinned.student).parameters())
    free = {"bytes": 0}
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda folder: usage(0, 0, free["bytes"]))
    for room, fits in ((36 + 4, None), (36 + 3, "keep='bf16' fits"), (36 + 1, "keep='none' fits"), (30, "lora_r=16")):
        free["bytes"] = room * size
        if fits is None:
            check_keep("full", pinned, tmp_path)
        else:
            with pytest.raises(InputError, match=fits):
                check_keep("full", pinned, tmp_path)
