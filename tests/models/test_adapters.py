"""A folder of LoRA adapters is a model: its base with the adapters merged, or one line that says why not."""

import json
import shutil
import warnings
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from studykit import results, study
from studykit.batch.parameter_files import file_hashes
from studykit.errors import InputError
from studykit.models.limits import limits_of
from studykit.models.loading import load_student, load_teacher
from studykit.models.names import Models
from studykit.spec import Lora, RunSpec, Student
from studykit.study.pin import pin

IDS = torch.arange(3, 11)[None]
TARGETS = ["q_proj", "down_proj"]


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.fixture
def adapters_on(tmp_path):
    """Save adapters with random weights on a model's folder, and return their folder and what the model then gives."""

    def make(base, name="adapters", change=None, **settings):
        model = AutoModelForCausalLM.from_pretrained(base)
        if change is not None:
            change(model)
        kind = settings.pop("kind", LoraConfig)
        settings = {"target_modules": TARGETS, "task_type": "CAUSAL_LM"} | settings
        with warnings.catch_warnings():  # of tied embeddings, which is what a test is about
            warnings.simplefilter("ignore")
            adapted = get_peft_model(model, kind(**settings))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in (weight for weight in adapted.parameters() if weight.requires_grad):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
        adapted.save_pretrained(tmp_path / name, save_embedding_layers=bool(change))
        return tmp_path / name, logits(adapted)

    return make


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_dora": True}, {"use_rslora": True}, {"modules_to_save": ["lm_head"]}],
    ids=["lora", "dora", "rank-stabilised", "trained head"],
)
def test_adapters_are_merged_into_their_base(settings, adapters_on, teacher_folder, tokenizer, tmp_path):
    folder, expected = adapters_on(teacher_folder, **settings)
    model = Models().find(str(folder))
    assert limits_of(model).embedding_rows == limits_of(Models().find(str(teacher_folder))).embedding_rows
    assert model.tokenizer.get_vocab() == tokenizer.get_vocab()
    loaded: Any = None
    for loaded in (load_teacher(model), load_student(Student(name=str(folder)), model)):
        torch.testing.assert_close(logits(loaded), expected, rtol=1e-4, atol=1e-4)
        assert not any("lora" in name for name, _ in loaded.named_parameters())
    loaded.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(again), expected, rtol=1e-4, atol=1e-4)


def test_hash_and_tokenizer_are_those_of_base_and_adapters_wherever_the_base_lies(
    adapters_on, teacher_folder, tokenizer, tmp_path
):
    folder, _ = adapters_on(teacher_folder)
    first = Models().find(str(folder)).sha256
    moved = shutil.copytree(teacher_folder, tmp_path / "moved")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(moved)}))
    assert Models().find(str(folder)).sha256 == first
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 99}))
    assert Models().find(str(folder)).sha256 != first
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(moved)}))
    (moved / "generation_config.json").write_text("{}")
    assert Models().find(str(folder)).sha256 != first
    before = set(file_hashes(str(folder), tmp_path))  # of adapters, their settings, and the base's weights
    AutoModelForCausalLM.from_pretrained(teacher_folder, num_hidden_layers=1).save_pretrained(moved)
    assert len(before) == len(before & set(file_hashes(str(folder), tmp_path))) + 1 == 3
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert Models().find(str(folder)).tokenizer.chat_template == "{{ messages[0].content }}"


def test_the_adapters_of_a_run_are_the_model_of_the_run_also_on_top_of_adapters(
    plain_spec, stage, teacher_folder, tmp_path, monkeypatch
):
    name, run = str(teacher_folder), tmp_path
    for _ in range(2):  # the second run starts from the first one's adapters
        row = study.run(
            plain_spec(stage(steps=2), teacher=False, student={"name": name, "lora": {"lora_r": 2}}), root=tmp_path
        )
        run = results.find_run(tmp_path, row["run_id"])
        name = str(run / "adapter")
        model = load_teacher(Models().find(name))
        torch.testing.assert_close(
            logits(model), logits(load_teacher(Models().find(str(run / "model")))), rtol=1e-4, atol=1e-4
        )
    monkeypatch.chdir(tmp_path / "scratch")  # the base is found from anywhere
    relative = str((run / "adapter").relative_to(tmp_path / "scratch"))
    assert Models().find(relative).weights.path == str(teacher_folder.resolve())


def test_new_adapters_are_trained_on_top_of_merged_ones(adapters_on, teacher_folder):
    folder, expected = adapters_on(teacher_folder)
    student = load_student(Student(name=str(folder), lora=Lora(lora_r=2)), Models().find(str(folder)))
    torch.testing.assert_close(logits(student), expected, rtol=1e-4, atol=1e-4)  # new ones begin at zero
    trained = [name for name, weight in student.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)


def test_all_weights_are_trained_from_merged_adapters_on(adapters_on, teacher_folder, plain_spec, stage, tmp_path):
    folder, _ = adapters_on(teacher_folder)
    row = study.run(plain_spec(stage(steps=2), teacher=False, student={"name": str(folder)}), root=tmp_path)
    trained = load_teacher(Models(tmp_path).find(row["run_id"]))
    start = load_teacher(Models().find(str(folder)))
    moved = [not a.equal(b) for a, b in zip(trained.parameters(), start.parameters(), strict=True)]
    assert all(moved)


def edit(**changes):
    def apply(folder):
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | changes))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit(base_model_name_or_path="/gone/model"), "base model '/gone/model' of the adapters .*no such folder"),
        (
            edit(base_model_name_or_path="someone/gone"),
            "base model 'someone/gone' of .*cannot load model",
        ),
        (edit(base_model_name_or_path="lexicon/gone"), "base model 'lexicon/gone' .*unknown embedded model"),
        (edit(base_model_name_or_path=None), "names no base_model_name_or_path"),
        (edit(peft_type="PROMPT_TUNING"), "adapters of type 'PROMPT_TUNING', and only LORA is read: merge them"),
        (lambda folder: edit(base_model_name_or_path=str(folder))(folder), "it is those adapters themselves"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), r"holds no adapter_model\.safetensors"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), r"cannot read .*adapter_config\.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), r"adapter_config\.json is no JSON object"),
    ],
)
def test_what_is_no_use_is_refused_when_it_is_looked_up(damage, message, adapters_on, teacher_folder):
    folder, _ = adapters_on(teacher_folder)
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        Models().find(str(folder))
    assert "\n" not in str(caught.value)


def test_adapters_of_another_kind_are_refused(adapters_on, teacher_folder):
    folder, _ = adapters_on(teacher_folder, kind=IA3Config, feedforward_modules=["down_proj"])
    with pytest.raises(InputError, match="adapters of type 'IA3'"):
        Models().find(str(folder))


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({}, {"hidden_size": 32}),
        ({}, {"num_hidden_layers": 1}),
        ({"modules_to_save": ["embed_tokens"]}, {"vocab_size": 200}),
    ],
)
def test_adapters_of_another_base_are_refused(settings, changes, adapters_on, teacher_folder, tiny_model, tmp_path):
    folder, _ = adapters_on(teacher_folder, **settings)
    tiny_model(**changes).save_pretrained(tmp_path / "other")
    edit(base_model_name_or_path=str(tmp_path / "other"))(folder)
    with pytest.raises(
        InputError, match=r"the adapters in .* do not fit .*: name their base model, or merge"
    ) as caught:
        load_teacher(Models().find(str(folder)))
    assert "\n" not in str(caught.value)


def test_an_embedding_that_was_resized_for_the_adapters_is_refused(adapters_on, teacher_folder):
    folder, _ = adapters_on(
        teacher_folder, change=lambda model: model.resize_token_embeddings(120), modules_to_save=["embed_tokens"]
    )
    with pytest.raises(InputError, match=r"the adapters in .* do not fit .*size mismatch"):
        load_teacher(Models().find(str(folder)))


def test_adapters_that_a_merge_would_change_are_refused(adapters_on, tiny_model, tokenizer, tmp_path):
    tiny_model(tie_word_embeddings=True).save_pretrained(tmp_path / "tied")
    tokenizer.save_pretrained(tmp_path / "tied")
    folder, _ = adapters_on(tmp_path / "tied", target_modules=["embed_tokens"])
    with pytest.raises(InputError, match="change the logits when they are merged"):
        load_teacher(Models().find(str(folder)))


def test_vllm_cannot_read_adapters(adapters_on, teacher_folder, plain_spec, stage):
    folder, _ = adapters_on(teacher_folder)
    spec = plain_spec(stage("seqkd")) | {"teacher": {"name": str(folder), "engine": "vllm"}}
    with pytest.raises(
        InputError, match=r"engine 'vllm' reads weights from disk, and teacher .* is a folder of adapters"
    ):
        pin(RunSpec.parse(spec))


@pytest.mark.filterwarnings("ignore:Adapter 'default'")
def test_adapters_that_cannot_be_merged_are_refused(adapters_on, teacher_folder):
    folder, _ = adapters_on(teacher_folder, lora_bias=True)  # of layers without a bias
    with pytest.raises(InputError, match=r"the adapters in .* cannot be merged: .*bias"):
        load_teacher(Models().find(str(folder)))
