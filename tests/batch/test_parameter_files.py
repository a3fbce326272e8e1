"""A cell of a batch is another one once a file that its parameters name has changed."""

from studykit.batch.parameter_files import contents_of


def test_names_no_file_gives_nothing(tmp_path):
    assert contents_of({"a": "kd", "b": [1, None, "x/y"], "c": {"d": ""}}, tmp_path) == []


def test_an_edited_file_counts_wherever_it_is_named(tmp_path):
    (tmp_path / "train.jsonl").write_text("one")
    (tmp_path / "test.jsonl").write_text("two")
    parameters = {"source_options": {"path": "{split}.jsonl"}}
    before = contents_of(parameters, tmp_path)
    (tmp_path / "test.jsonl").write_text("three")
    after = contents_of(parameters, tmp_path)

    assert len(before) == len(after) == 2
    assert before != after


def test_a_model_folder_counts_by_its_weights(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"1")
    before = contents_of({"student": "model"}, tmp_path)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"2")

    assert before != contents_of({"student": "model"}, tmp_path)


def test_an_embedded_model_counts_by_its_weights(tmp_path):
    assert len(contents_of({"teacher": "lexicon/teacher-a"}, tmp_path)) == 1
