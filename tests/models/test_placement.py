"""A teacher spread over devices gives the same logits; what cannot be placed or quantised is refused beforehand."""

import pytest
import torch

from studykit.data import Inputs
from studykit.errors import InputError
from studykit.models import placement
from studykit.models.loading import load_teacher
from studykit.models.names import Models
from studykit.spec import RunSpec, Teacher
from studykit.study.pin import pin
from studykit.teacher import open_teacher

MAP: dict[str, int | str] = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
}
MAP |= {"model.rotary_emb": "cpu", "lm_head": "cpu"}


def find(folder):
    return Models().find(str(folder))


@pytest.mark.parametrize("device_map", ["auto", "cpu", MAP])
def test_a_teacher_that_is_spread_gives_the_same_signal(device_map, teacher_folder, encoded, tokenizer, empty_cache):
    whole, spread = (
        open_teacher(Teacher(name="a", top_k=8, sha256="a", device_map=m), find(teacher_folder), tokenizer, 85)
        for m in (None, device_map)
    )
    assert (getattr(spread.model, "hf_device_map", None) == MAP) == (device_map == MAP)
    whole.prepare(encoded)
    spread.prepare(encoded)  # the same entries: they are checked against this one
    assert spread.cost["teacher_tokens"] == 0 < spread.cost["teacher_check_tokens"]
    ids = torch.arange(12).reshape(2, 6)
    torch.testing.assert_close(spread.model(ids).logits, whole.model(ids).logits, rtol=1e-5, atol=1e-5)


def test_a_head_that_is_nowhere_is_refused(teacher_folder):
    with pytest.raises(InputError, match=r"leaves the output head of .* to the CPU or the disk: give it to a device"):
        load_teacher(find(teacher_folder), Teacher(name="a", device_map=MAP | {"lm_head": "disk"}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"device_map": "outo"}, "unknown device_map 'outo'; did you mean 'auto'"),
        ({"device_map": {"lm_head": "gpu"}}, "'lm_head' is to be on 'gpu': name a device"),
        ({"quantization": "nf4"}, r"quantization 'nf4' needs bitsandbytes: pip install 'studykit\[quantize\]'"),
        ({"device_map": "auto", "pruned": 0.5}, "is pruned on one device"),
        ({"device_map": "auto", "engine": "vllm"}, "engine 'vllm' places the weights by itself"),
    ],
)
def test_what_cannot_be_placed_is_refused_before_it_is_loaded(fields, said, plain_spec, stage, tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "find_spec", lambda name: None)
    plain = plain_spec(stage("kd"))
    plain["teacher"] |= fields
    with pytest.raises(InputError, match=said):
        pin(RunSpec.parse(plain), Inputs(tmp_path))


def test_where_it_is_changes_no_run_and_how_it_is_quantised_does(plain_spec, stage):
    plain = plain_spec(stage("kd"))
    ids = [
        RunSpec.parse(plain | {"teacher": plain["teacher"] | fields}).run_id
        for fields in ({}, {"device_map": "auto"}, {"quantization": None}, {"quantization": "nf4"})
    ]
    assert ids[0] == ids[1] == ids[2] != ids[3]
