"""A cell of a batch is another one once a file that its parameters name has changed."""

from studykit.batch.parameter_files import file_hashes


def test_names_no_file_gives_nothing(tmp_path):
    assert file_hashes({"a": "kd", "b": [1, None, "x/y"], "c": {"d": ""}}, tmp_path) == []


def test_an_edited_file_counts_wherever_it_is_named(tmp_path):
    (tmp_path / "train.jsonl").write_text("one")
    (tmp_path / "test.jsonl").write_text("two")
    parameters = {"source_options": {"path": "{split}.jsonl"}}
    before = file_hashes(parameters, tmp_path)
    (tmp_path / "test.jsonl").write_text("three")
    after = file_hashes(parameters, tmp_path)

    assert len(before) == len(after) == 2
    assert before != after


def test_a_model_folder_counts_by_its_weights(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"1")
    before = file_hashes({"student": "model"}, tmp_path)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"2")

    assert before != file_hashes({"student": "model"}, tmp_path)


def test_an_embedded_model_counts_by_its_weights(tmp_path):
    assert len(file_hashes({"teacher": "lexicon/teacher-a"}, tmp_path)) == 1
