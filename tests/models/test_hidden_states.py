"""Packed hidden states: the same states and gradients as padded, and no padding in the layers."""

import copy
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

from studykit.data import Inputs
from studykit.errors import InputError
from studykit.models import states
from studykit.models.loading import check_attention, load_student, load_teacher
from studykit.models.names import Models
from studykit.models.states import choose_packing, hidden_states, unwrap
from studykit.spec import Lora, RunSpec, Student, Teacher
from studykit.study.pin import pin
from studykit.training import train
from studykit.training.stages import leave_float32_flash

SHAPE = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32}
SLIDING = {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 3}
ARCHITECTURES = {
    "llama": {"model_type": "llama"},
    "llama, eager": {"model_type": "llama", "attn_implementation": "eager"},
    "qwen2": {"model_type": "qwen2"},
    "qwen2, sliding": {"model_type": "qwen2", **SLIDING},
    "mistral, sliding": {"model_type": "mistral", "sliding_window": 3},
}
LENGTHS = {"ragged": [7, 4, 9, 1, 9, 2], "one row": [6], "one token": [1], "tokens": [1, 1, 1], "full": [5, 5]}


def make(**config):
    fields = {**SHAPE, **HEADS, **config}
    torch.manual_seed(1)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields)).double()
    with torch.no_grad():
        for parameter in made.parameters():  # attention of small random weights hardly looks at anything
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.3)
    return made


def batch(lengths):
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return torch.randint(1, 50, mask.shape, generator=torch.Generator().manual_seed(3)) * mask, mask


def states_and_gradients(model, lengths, padding_free):
    model.zero_grad(set_to_none=True)
    ids, mask = batch(lengths)
    hidden = hidden_states(model, ids, mask, choose_packing(model, padding_free))
    weights = torch.randn(hidden.shape, dtype=hidden.dtype, generator=torch.Generator().manual_seed(4))
    (torch.tanh(hidden) * weights * mask[..., None]).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return hidden.detach() * mask[..., None], gradients


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_states_and_gradients_are_those_of_the_padded_batch(name, lengths):
    model = make(**ARCHITECTURES[name])
    padded, expected = states_and_gradients(model, LENGTHS[lengths], False)
    free, gradients = states_and_gradients(model, LENGTHS[lengths], True)
    tolerance = 1e-5 if "eager" in name else 1e-11  # eager attention takes its softmax in float32
    torch.testing.assert_close(free, padded, rtol=tolerance, atol=tolerance)
    assert gradients.keys() == expected.keys() != set()
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[key], rtol=tolerance, atol=tolerance)


def test_a_sliding_window_is_shorter_than_the_sequences():
    """Or the test above would not see whether it reaches over the border of a sequence."""
    full, sliding = (make(**ARCHITECTURES[name]) for name in ("qwen2", "qwen2, sliding"))
    one, other = (states_and_gradients(model, LENGTHS["ragged"], True)[0] for model in (full, sliding))
    assert (one - other).abs().max() > 1e-3


def tokens_through(model, lengths, padding_free):
    """Return the shape of the token ids that the layers see."""
    seen = []
    layer = unwrap(model).get_input_embeddings()
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[:2])))
    hidden_states(model, *batch(lengths), choose_packing(model, padding_free))
    handle.remove()
    return seen[-1]


def test_padding_goes_through_the_layers_unless_rows_are_packed():
    model, lengths = make(model_type="llama"), LENGTHS["ragged"]
    for padding_free in (None, False):
        assert tokens_through(model, lengths, padding_free) == (6, 9)
    assert tokens_through(model, lengths, True) == (1, sum(lengths))


def test_adapters_see_the_packed_row(teacher_folder, tmp_path):
    student = load_student(
        Student(name=str(teacher_folder), lora=Lora(lora_r=2)), Models().find(str(teacher_folder))
    ).double()
    padded, expected = states_and_gradients(student, LENGTHS["ragged"], False)
    free, gradients = states_and_gradients(student, LENGTHS["ragged"], True)
    torch.testing.assert_close(free, padded, rtol=1e-6, atol=1e-6)
    assert gradients.keys() == expected.keys() != set()
    assert tokens_through(student, LENGTHS["ragged"], True) == (1, sum(LENGTHS["ragged"]))


@pytest.fixture
def as_flash(monkeypatch):
    """Take every attention for flash attention; the arithmetic stays that of sdpa."""
    monkeypatch.setattr(states, "is_flash_attention_requested", lambda config: True)


def test_flash_attention_packs_by_default_and_gets_the_lengths(as_flash, monkeypatch):
    model, told = make(model_type="llama"), {}
    ids, mask = batch(LENGTHS["ragged"])
    model.register_forward_pre_hook(lambda module, arguments, keywords: told.update(keywords), with_kwargs=True)
    assert hidden_states(model, ids, mask, choose_packing(model)).shape == (6, 9, 16)
    assert "attention_mask" not in told
    bounds, longest = prepare_fa_kwargs_from_position_ids(told["position_ids"])
    for name, bound, length in zip("qk", bounds, longest, strict=True):
        assert torch.equal(told[f"cu_seq_lens_{name}"], bound)
        assert told[f"cu_seq_lens_{name}"].dtype == torch.int32
        assert told[f"max_length_{name}"] == length
    assert tokens_through(model, LENGTHS["ragged"], False) == (6, 9)


LEAKY = {"opt": {"word_embed_proj_dim": 16, "ffn_dim": 24}, "bloom": {"n_layer": 2, "n_head": 2}}


@pytest.mark.parametrize("kind", LEAKY)
def test_an_architecture_whose_sequences_would_see_each_other_is_refused_or_left_padded(kind, as_flash):
    model = make(model_type=kind, **LEAKY[kind])
    with pytest.raises(InputError, match="padding_free: sequences of one row would see each other"):
        choose_packing(model, True)
    assert tokens_through(model, [3, 2], None) == (2, 3)


def test_the_choice_leaves_mode_random_state_and_gradients_alone():
    model = make(model_type="llama", attention_dropout=0.5).train()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert choose_packing(model, True)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("method", ["sft", "kd"])
def test_a_run_without_padding_ends_where_the_padded_one_does(method, plain_spec, stage, tmp_path):
    ends, costs = [], []
    for asked in (None, True):
        spec = RunSpec.parse(plain_spec(stage(method, padding_free=asked)))
        trained = train(pin(spec, Inputs(tmp_path / "results")), tmp_path / str(asked))
        ends.append(torch.cat([p.detach().flatten() for p in trained.model.parameters()]))
        costs.append(trained.cost)
        shutil.rmtree(tmp_path / str(asked))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=5e-5)  # weights that moved by 0.05
    assert not torch.equal(ends[0], ends[1])  # it did go another way
    assert costs[0]["padding_tokens"] > 0 == costs[1]["padding_tokens"]
    assert costs[0]["student_tokens"] == costs[1]["student_tokens"]


def test_the_teacher_of_a_run_goes_without_padding_too(plain_spec, stage, tmp_path, monkeypatch):
    rows = []
    whole = states._packed_states
    monkeypatch.setattr(states, "_packed_states", lambda m, *a: (rows.append(m.training), whole(m, *a))[1])
    spec = RunSpec.parse(plain_spec(stage("kd", steps=2, padding_free=True)))
    train(pin(spec, Inputs(tmp_path / "results")), tmp_path)
    assert {True, False} == set(rows)  # students are training, teachers are not
    assert rows.count(False) >= 2 + 2 * 2  # the teacher's batches, and the passes of both before the first


def test_none_is_left_out_of_the_canonical_form(plain_spec, stage):
    plain = plain_spec(stage())
    asked = copy.deepcopy(plain)
    asked["student"]["attn_implementation"] = asked["teacher"]["attn_implementation"] = None
    asked["stages"][0] |= {"padding_free": None, "bf16": None}
    assert RunSpec.parse(plain).run_id == RunSpec.parse(asked).run_id
    for part, field, value in (
        (asked["student"], "attn_implementation", "eager"),
        (asked["stages"][0], "padding_free", False),
        (asked["stages"][0], "bf16", False),
    ):
        part[field] = value
        assert RunSpec.parse(plain).run_id != RunSpec.parse(asked).run_id
        part[field] = None


def test_an_attention_implementation_reaches_the_models(tiny_config, teacher_folder, tmp_path):
    drawn = Student(name="lexicon/tokenizer", random_config=tiny_config, attn_implementation="eager")
    saved = Student(name=str(teacher_folder), attn_implementation="eager")
    models = Models()
    teacher = load_teacher(models.find(str(teacher_folder)), Teacher(name="a", attn_implementation="eager"))
    for model in (*(load_student(s, models.find(s.name)) for s in (drawn, saved)), teacher):
        assert unwrap(model).config._attn_implementation == "eager"
    default = load_student(drawn.model_copy(update={"attn_implementation": None}), models.find(drawn.name))
    assert unwrap(default).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("part", ["student", "teacher"])
def test_an_unknown_attention_implementation_is_refused_when_pinned(part, plain_spec, stage, tmp_path):
    plain = plain_spec(stage("kd"))
    plain[part] = plain[part] | {"attn_implementation": "flash_attention_22"}
    message = "unknown attn_implementation 'flash_attention_22'; did you mean 'flash_attention_2'"
    with pytest.raises(InputError, match=message):
        pin(RunSpec.parse(plain), Inputs(tmp_path))
    check_attention(None)
    check_attention("sdpa")


def test_an_attention_implementation_that_is_not_available_is_refused_in_one_line(
    tiny_config, teacher_folder, tmp_path
):
    for student in (
        Student(name="lexicon/tokenizer", random_config=tiny_config, attn_implementation="flash_attention_3"),
        Student(name=str(teacher_folder), attn_implementation="flash_attention_3"),
    ):
        with pytest.raises(InputError, match=r"cannot (make|load).*[Ff]lash") as caught:
            load_student(student, Models().find(student.name))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("dtype", "expected"), [(torch.float32, "sdpa"), (torch.bfloat16, "flash_attention_2")])
def test_a_float32_student_leaves_flash_attention_after_training(dtype, expected):
    """Flash attention takes 16 bits, which a float32 model has inside the training's autocast only."""
    model = make(model_type="llama").to(dtype)
    model.config._attn_implementation_internal = "flash_attention_2"
    leave_float32_flash(model)
    assert model.config._attn_implementation == expected
