"""Hidden states, heads, adapters and names: the same for every architecture and wrapper."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from studykit.errors import InputError
from studykit.models.loading import architecture, config_hash, load_student, load_teacher
from studykit.models.names import EMBEDDED, Models
from studykit.models.projection import output_head, project
from studykit.models.states import hidden_states, unwrap
from studykit.models.vocabulary import shared_vocabulary
from studykit.spec import Lora, Student

TOKENIZER = "lexicon/tokenizer"


def find(name):
    """Look up a model afresh."""
    return Models().find(name)


SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
ARCHITECTURES = {
    "llama": {"model_type": "llama", "tie_word_embeddings": False},
    "llama, tied": {"model_type": "llama", "tie_word_embeddings": True},
    "softcap": {"model_type": "gemma2", "head_dim": 8, "final_logit_softcapping": 0.05, "query_pre_attn_scalar": 8},
    "logit scale": {"model_type": "cohere", "logit_scale": 0.0625},
    "scaling": {"model_type": "granite", "logits_scaling": 8.0},
    "scaled the other way": {"model_type": "hyperclovax", "logits_scaling": 0.125},
    "head bias": {"model_type": "phi", "vocab_size": 50},
}
IDS = torch.randint(5, 50, (2, 7), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])


def make(name: str, lora: bool = False):
    config = ARCHITECTURES[name]
    student = Student(
        name="lexicon/tokenizer", random_config={**SMALL, **config}, lora=Lora(lora_r=2) if lora else None
    )
    model = load_student(student, find(student.name), seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and adapters start at values that hide mistakes
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    return model


@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_hidden_states_and_head_give_the_models_own_logits(name, lora):
    model = make(name, lora)
    own = model(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
    states, head = hidden_states(model, IDS, MASK), output_head(model)
    logits = project(states, head.weight, head.bias, head.logit_scale, head.softcap)
    torch.testing.assert_close(states, own.hidden_states[-1], rtol=0, atol=0)
    torch.testing.assert_close(logits, own.logits, rtol=1e-5, atol=1e-6)
    assert own.logits.std() > 1e-3


def test_scale_cap_and_bias_are_not_ignored():
    heads = {name: output_head(make(name)) for name in ARCHITECTURES}
    assert (heads["llama"].logit_scale, heads["llama"].softcap, heads["llama"].bias) == (1.0, None, None)
    assert heads["softcap"].softcap == 0.05
    assert heads["logit scale"].logit_scale == 0.0625
    assert heads["scaling"].logit_scale == heads["scaled the other way"].logit_scale == 0.125
    assert heads["head bias"].bias is not None


@pytest.mark.parametrize("name", ["final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap"])
def test_every_name_of_a_cap_is_known(name):
    model = make("llama")
    setattr(model.config, name, 0.05)
    assert output_head(model).softcap == 0.05


@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
def test_gradients_flow_through_hidden_states(lora):
    model = make("llama", lora)
    head = output_head(model)
    inputs = [p for p in model.parameters() if p.requires_grad]
    ours = project(hidden_states(model, IDS, MASK), head.weight, head.bias).logsumexp(-1).sum()
    own = model(input_ids=IDS, attention_mask=MASK).logits.logsumexp(-1).sum()
    for left, right in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(own, inputs), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)


def test_the_hook_is_removed():
    model = make("llama")
    hidden_states(model, IDS, MASK)
    assert model(input_ids=IDS).logits.shape == (2, 7, 50)


def test_lora_trains_adapters_only():
    model = make("llama", lora=True)
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learns
    assert all(".lora_A." in name or ".lora_B." in name for name in learns)
    assert not unwrap(model).get_output_embeddings().weight.requires_grad
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    assert sum(n for n, yes in sizes if yes) < 0.3 * sum(n for n, _ in sizes)


def test_fresh_adapters_change_nothing_and_follow_the_seed(teacher_folder):
    plain = Student(name=str(teacher_folder))
    lora = plain.model_copy(update={"lora": Lora(lora_r=2)})
    base, first, second, other = (
        load_student(s, find(s.name), seed) for s, seed in ((plain, 0), (lora, 0), (lora, 0), (lora, 1))
    )
    torch.testing.assert_close(first(input_ids=IDS).logits, base(input_ids=IDS).logits, rtol=0, atol=0)
    name = next(name for name in first.state_dict() if ".lora_A." in name)
    assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_adapters_where_there_is_nothing_to_adapt_are_refused(tiny_config):
    lora = Lora(lora_target_modules=("query",))
    with pytest.raises(InputError, match=r"LoRA: .*query"):
        load_student(Student(name=TOKENIZER, random_config=tiny_config, lora=lora), find(TOKENIZER))


def test_adapters_on_the_head_are_refused_with_the_fix(tiny_config):
    lora = Lora(lora_target_modules=("lm_head",))
    with pytest.raises(InputError, match="leave it out of lora_target_modules"):
        load_student(Student(name=TOKENIZER, random_config=tiny_config, lora=lora), find(TOKENIZER))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"model_type": [[]]}, r"unknown model_type '\[\[\]\]'"),
        ({"model_type": {"model_type": "llama"}}, "unknown model_type"),
        ({}, "unknown model_type 'None'"),
        ({"model_type": "llama", "hidden_size": "large"}, "hidden_size"),
    ],
)
def test_an_architecture_that_does_not_exist_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        architecture(config)


def test_random_weights_follow_the_seed(tiny_config):
    student = Student(name="lexicon/tokenizer", random_config=tiny_config)
    one, same, other = (
        load_student(student, find(student.name), seed).state_dict()["lm_head.weight"] for seed in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_teacher_neither_learns_nor_drops_out(teacher_folder, tmp_path):
    teacher = load_teacher(find(str(teacher_folder)))
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


def test_one_tokenizer_gives_its_real_rows(tokenizer):
    assert shared_vocabulary(tokenizer, tokenizer) == len(tokenizer.get_vocab()) == 85


def test_different_tokenizers_are_refused_with_examples(tokenizer, tmp_path):
    shutil.copytree(EMBEDDED / "lexicon" / "tokenizer", tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"Pronounce"', '"Say"'), encoding="utf-8")
    other = find(str(tmp_path / "other")).tokenizer
    with pytest.raises(InputError, match=r"different tokenizers \(85 and 85 tokens; .*Pronounce, Say"):
        shared_vocabulary(tokenizer, other)


def test_a_tokenizer_without_a_pad_token_pads_with_its_end(tmp_path):
    shutil.copytree(EMBEDDED / "lexicon" / "tokenizer", tmp_path / "other")
    file = tmp_path / "other" / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    del settings["pad_token"]
    file.write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = find(str(tmp_path / "other")).tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None


def test_an_embedded_model_is_found_by_its_name(tmp_path):
    assert Models(tmp_path).find("lexicon/tokenizer").path == str(EMBEDDED / "lexicon" / "tokenizer")
    with pytest.raises(
        InputError, match="unknown embedded model 'lexicon/teacher-aa'; did you mean 'lexicon/teacher-a"
    ):
        Models(tmp_path).find("lexicon/teacher-aa")


def test_a_finished_run_is_found_by_its_id(tmp_path):
    run = tmp_path / "study" / "runs" / "0123456789ab"
    (run / "model").mkdir(parents=True)
    with pytest.raises(InputError, match="run 0123456789ab has no saved model"):
        Models(tmp_path).find("0123456789ab")  # a run that was killed while its model was saved
    (run / "record.json").write_text('{"status": "failed"}', encoding="utf-8")
    with pytest.raises(InputError, match="run it first"):
        Models(tmp_path).find("0123456789ab")
    (run / "record.json").write_text('{"status": "done"}', encoding="utf-8")
    assert Models(tmp_path).find("0123456789ab").path == str(run / "model")


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.2-1B", "gpt2", "../models", "/nowhere/model", "abcdef"])
def test_any_other_name_is_left_to_the_hub(name, tmp_path):
    assert Models(tmp_path).find(name).path == name


def test_a_local_folder_is_taken_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    assert Models(tmp_path).find(str(tmp_path / "mine")).path == str(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lexicon" / "teacher-z").mkdir(parents=True)
    assert Models(tmp_path).find("lexicon/teacher-z").path == "lexicon/teacher-z"


def test_what_cannot_be_loaded_is_said_in_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot load the tokenizer of 'nobody/nothing'") as caught:
        _ = find("nobody/nothing").tokenizer
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot load model"):
        load_student(Student(name="nobody/nothing"), find("nobody/nothing"))
    with pytest.raises(InputError, match="'/nowhere/mine': there is no such folder"):
        _ = find("/nowhere/mine").tokenizer


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_no_model_and_not_the_current_folder(name, teacher_folder, monkeypatch):
    monkeypatch.chdir(teacher_folder)
    with pytest.raises(InputError, match="the name of a model is empty: give an embedded model"):
        find(name)


def test_a_folder_without_a_tokenizer_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"the folder holds none: save it there with tokenizer.save_pretrained"):
        _ = find(str(tmp_path)).tokenizer
    (tmp_path / "vocab.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"cannot load the tokenizer of .*\w\.?$"):  # not the half of a list
        _ = find(str(tmp_path)).tokenizer


def change_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


DAMAGE = {
    "cut weights": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:3000]),
        r"cannot load model .*",
    ),
    "other sizes": (
        lambda folder: change_config(folder, intermediate_size=24),
        r"its weights have other sizes than its config\.json says",
    ),
    "a cut generation_config.json": (
        lambda folder: (folder / "generation_config.json").write_text("{", encoding="utf-8"),
        r"generation_config\.json cannot be read .*: repair it, or remove it",
    ),
    "an end token by its name": (
        lambda folder: (folder / "generation_config.json").write_text('{"eos_token_id": [2, "x"]}', encoding="utf-8"),
        r"generation_config\.json: eos_token_id must be a token id, or a list of them, received 'x'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_line(damage, teacher_folder, tmp_path):
    folder = shutil.copytree(teacher_folder, tmp_path / "copy")
    apply, message = DAMAGE[damage]
    apply(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_student(Student(name=str(folder)), find(str(folder)))
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_called_damaged(tiny_model, tokenizer, tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="gives logits of nan on a few tokens: its weights are damaged"):
        load_student(Student(name=str(tmp_path)), find(str(tmp_path)))


def test_tensors_that_a_configuration_does_not_use_are_named(teacher_folder, tmp_path, caplog):
    folder = shutil.copytree(teacher_folder, tmp_path / "copy")
    change_config(folder, num_hidden_layers=1)
    load_student(Student(name=str(folder)), find(str(folder)))
    assert any("tensors of its files not, such as model.layers.1." in message for message in caplog.messages)


def test_a_hash_of_weights_follows_weights_and_configuration(teacher_folder, tmp_path):
    shutil.copytree(teacher_folder, tmp_path / "copy")
    first = find(str(teacher_folder)).sha256
    assert find(str(tmp_path / "copy")).sha256 == first
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace("1e-06", "1e-05"), encoding="utf-8")
    second = find(str(tmp_path / "copy")).sha256
    weights = tmp_path / "copy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert len({first, second, find(str(tmp_path / "copy")).sha256}) == 3
    weights.unlink()
    with pytest.raises(InputError, match=r"no \*.safetensors"):
        _ = find(str(tmp_path / "copy")).sha256


def test_a_hash_of_an_architecture_follows_its_content(tokenizer):
    hashes = [config_hash(config, tokenizer) for config in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1})]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_hub_model_that_cannot_be_reached_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot load model 'nobody/nothing'"):
        _ = find("nobody/nothing").sha256


def test_saved_weights_come_back_bit_by_bit(tiny_model, tmp_path):
    model = tiny_model(seed=5)
    model.save_pretrained(tmp_path / "model")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert AutoConfig.from_pretrained(tmp_path / "model").model_type == "llama"
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
