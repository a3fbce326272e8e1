"""Pruning: the smallest weights of each linear layer, no others, and a teacher that answers differently for it."""

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from studykit.collate import collate
from studykit.models.loading import load_teacher
from studykit.models.names import Models
from studykit.spec import Teacher
from studykit.spec.pruning import prune
from studykit.teacher import open_teacher

V = 85


def linear(model) -> dict[str, torch.Tensor]:
    return {name: layer.weight for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_each_linear_layer_loses_its_smallest_weights_and_the_head_none(share, tiny_model):
    model = tiny_model(seed=4)
    before = copy.deepcopy(model)
    prune(model, share)
    pairs = {name: (weight, linear(before)[name]) for name, weight in linear(model).items()}
    assert torch.equal(*pairs.pop("lm_head"))
    assert len(pairs) == 2 * 7
    for after, was in pairs.values():
        gone = after == 0
        assert gone.sum() == round(share * was.numel())
        assert torch.equal(after[~gone], was[~gone])
        if share > 0:
            assert was[gone].abs().max() <= was[~gone].abs().min()


def test_embeddings_norms_and_a_tied_head_stay(tiny_model):
    model = tiny_model(seed=4, tie_word_embeddings=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prune(model, 0.5)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{name}.weight" for name in linear(model) if name != "lm_head"}


def test_a_pruned_model_is_no_graph_and_keeps_what_may_learn(tiny_model):
    model = tiny_model()
    prune(model, 0.3)
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in model.parameters())


@pytest.fixture
def logp(teacher_folder, tokenizer, encoded, empty_cache):
    """Return what a teacher on disk says about a batch."""

    def of(**changes):
        model = Models().find(str(teacher_folder))
        teacher = open_teacher(Teacher(name=model.name, sha256="c", **changes), model, tokenizer, V)
        batch = collate(encoded, [3, 8, 12], tokenizer.pad_token_id)
        teacher.prepare(encoded.take([3, 8, 12]))
        count = len(batch.target)
        return teacher.signal(batch).inputs(slice(None), torch.zeros(count, V), batch.target, 1.0)[1]

    return of


def test_a_pruned_teacher_is_another_one(logp):
    whole, none, pruned = logp(), logp(pruned=0.0), logp(pruned=0.2)
    assert torch.equal(whole, none)
    assert (whole - pruned).abs().max() > 0.05


@pytest.mark.parametrize("kept", [{"top_k": V}, {"samples": 64}])
def test_a_pruned_teacher_has_another_cache(kept, logp):
    """The spot check would refuse one teacher's answers for the other's."""
    answers = [logp(**kept, pruned=share) for share in (None, 0.3, 0.5)]
    if "top_k" in kept:
        assert not torch.equal(answers[0], answers[1])


def test_the_teachers_file_stays_whole(teacher_folder):
    pruned, whole = (load_teacher(Models().find(str(teacher_folder)), Teacher(name="a", pruned=p)) for p in (0.5, None))
    shares = [(w == 0).float().mean().item() for model in (pruned, whole) for w in linear(model).values()]
    assert min(shares[:14]) == pytest.approx(0.5, abs=0.01)
    assert max(shares[15:]) < 0.01
    assert not any(parameter.requires_grad for parameter in pruned.parameters())


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValidationError, match="pruned"):
        Teacher(name="x", pruned=share)
