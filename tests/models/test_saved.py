"""What a run saves: a model that others can load, with a card that says what it is."""

import json

import pytest
import yaml

from studykit import results, study
from studykit.models.loading import load_student
from studykit.models.names import Models
from studykit.spec import Student


def run_of(plain_spec, stage, root, **changes):
    spec = plain_spec(stage(steps=8), **changes)
    row = study.run(spec, study="saved", root=root)
    return row["run_id"], results.find_run(root, row["run_id"]) / "model"


def test_card_has_the_hubs_metadata_and_the_runs_numbers(tmp_path, plain_spec, stage):
    run_id, folder = run_of(plain_spec, stage, tmp_path)
    text = (folder / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(text.split("---\n")[1])

    assert header["library_name"] == "transformers"
    assert "sft" in header["tags"]
    assert run_id in text
    assert "8 optimizer steps on 24 of 24 examples" in text


@pytest.mark.parametrize("lora", [None, {"lora_r": 4}])
def test_a_finished_run_is_a_model_by_its_id(lora, tmp_path, plain_spec, stage, teacher_folder):
    changes = {"student": {"name": str(teacher_folder), "lora": lora}}
    run_id, folder = run_of(plain_spec, stage, tmp_path, **changes)
    models = Models(tmp_path)
    model = load_student(Student(name=run_id), models.find(run_id))
    start = load_student(Student(name=str(teacher_folder)), models.find(str(teacher_folder)))
    moved = [not a.equal(b) for a, b in zip(model.parameters(), start.parameters(), strict=True)]

    assert (folder.parent / "adapter" / "adapter_config.json").exists() == (lora is not None)
    counts = json.loads((folder.parent / "record.json").read_text(encoding="utf-8"))["parameters"]
    assert 0 < counts["trainable"] <= counts["total"]
    assert (counts["trainable"] < counts["total"]) == (lora is not None)  # counted before adapters are merged
    assert not (folder / "adapter_config.json").exists()
    assert any(moved)
    assert all(parameter.requires_grad for parameter in model.parameters())
