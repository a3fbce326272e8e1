"""A packed file stands for the file of its name, for every reader."""

import bz2

import pytest

from studykit.files import read_lines
from studykit.files.packed import pack, place_of, read_packed


@pytest.fixture
def packed(tmp_path):
    """Return a file, which is packed, and what it held."""
    file, content = tmp_path / "items.jsonl", b'{"id": "a"}\n{"id": "b"}\n'
    file.write_bytes(content)
    pack(file)
    return file, content


def test_the_content_is_there_packed_or_not(packed):
    file, content = packed
    assert not file.exists()
    assert place_of(file).name == "items.jsonl.bz2"
    assert read_packed(file) == content
    assert read_lines(file) == ([{"id": "a"}, {"id": "b"}], 0)
    file.write_bytes(b'{"id": "c"}\n')
    assert place_of(file) == file
    assert read_lines(file) == ([{"id": "c"}], 0)


def test_the_same_content_packs_to_the_same_bytes(packed, tmp_path):
    file, content = packed
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / "items.jsonl"
    again.write_bytes(content)
    pack(again)
    assert place_of(again).read_bytes() == place_of(file).read_bytes()


WHOLE = bz2.compress(b"{}\n")


DAMAGE = {"empty": b"", "no bzip2": b"no bzip2", "cut": WHOLE[:-5], "changed": WHOLE[:12] + bytes([255] * 9)}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_and_ends_no_reader(packed, damage):
    file, _ = packed
    place_of(file).write_bytes(damage)
    with pytest.raises(ValueError, match=r"items\.jsonl\.bz2 is damaged"):
        read_packed(file)
    assert read_lines(file) == ([], 1)


def test_a_file_that_is_not_there_has_no_lines(tmp_path):
    assert read_lines(tmp_path / "none.jsonl") == ([], 0)
    with pytest.raises(FileNotFoundError):
        read_packed(tmp_path / "none.jsonl")
