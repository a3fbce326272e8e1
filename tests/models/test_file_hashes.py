"""A file's hash is that of its content, and is computed once."""

import hashlib
import os

import pytest

from studykit.models import file_hashes
from studykit.models.file_hashes import file_sha256
from studykit.models.names import ModelRef


@pytest.fixture
def read(monkeypatch):
    """Record the files whose content is read."""
    names, digest = [], hashlib.file_digest

    def counting(stream, name):
        names.append(os.path.basename(stream.name))
        return digest(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return names


def write(file, content, age_s=10):
    file.write_bytes(content)
    made = file.stat().st_mtime - age_s
    os.utime(file, (made, made))


def test_it_is_the_sha256_and_is_read_once(tmp_path, empty_cache, read):
    write(tmp_path / "a.safetensors", b"weights")
    hashes = {file_sha256(tmp_path / "a.safetensors") for _ in range(3)}
    assert hashes == {hashlib.sha256(b"weights").hexdigest()}
    assert read == ["a.safetensors"]


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_file_that_was_changed_is_read_again(tmp_path, empty_cache, read, change):
    file = tmp_path / "a.safetensors"
    write(file, b"weights")
    file_sha256(file)
    if change == "inode":
        write(tmp_path / "new", b"WEIGHTS")
        os.utime(tmp_path / "new", ns=(file.stat().st_mtime_ns, file.stat().st_mtime_ns))
        os.replace(tmp_path / "new", file)
    else:
        write(file, b"WEIGHTS" if change == "time" else b"more weights", age_s=20)
    assert file_sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len(read) == 2


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, empty_cache, read):
    write(tmp_path / "a.safetensors", b"weights", age_s=0)
    for _ in range(2):
        file_sha256(tmp_path / "a.safetensors")
    assert len(read) == 2


@pytest.mark.parametrize("damage", [b"", b"ff", b"\xff" * 64, b"g" * 64])
def test_a_damaged_memory_is_replaced(tmp_path, empty_cache, damage):
    write(tmp_path / "a.safetensors", b"weights")
    right = file_sha256(tmp_path / "a.safetensors")
    [remembered] = (empty_cache / "file-hashes").iterdir()
    remembered.write_bytes(damage)
    assert file_sha256(tmp_path / "a.safetensors") == right
    assert remembered.read_text() == right


def test_a_models_weights_are_read_once_for_all_runs(teacher_folder, empty_cache, read, monkeypatch):
    monkeypatch.setattr(file_hashes, "_SETTLED_NS", -1)
    hashes = {ModelRef("teacher", str(teacher_folder)).sha256 for _ in range(3)}
    assert len(hashes) == 1
    assert read.count("model.safetensors") == 1
