"""Checkpoints that are whole or not there."""

import pytest

from studykit.training.checkpoints import MARKER, is_complete, mark_complete, newest_complete


@pytest.fixture
def folder(tmp_path):
    """Return a folder with three whole checkpoints."""
    for step in (2, 9, 10):
        checkpoint = tmp_path / f"checkpoint-{step}"
        (checkpoint / "deep").mkdir(parents=True)
        (checkpoint / "optimizer.pt").write_bytes(b"state of %d" % step)
        (checkpoint / "deep" / "model.bin").write_bytes(b"weights of %d" % step)
        mark_complete(checkpoint)
    return tmp_path


def damage_missing(checkpoint):
    (checkpoint / "optimizer.pt").unlink()


def damage_truncated(checkpoint):
    (checkpoint / "deep" / "model.bin").write_bytes(b"weights")


def damage_changed(checkpoint):
    (checkpoint / "optimizer.pt").write_bytes(b"state of 11")


def damage_no_marker(checkpoint):
    (checkpoint / MARKER).unlink()


def damage_torn_marker(checkpoint):
    (checkpoint / MARKER).write_text('{"optimizer.pt": ', encoding="utf-8")


def damage_emptied(checkpoint):
    for file in checkpoint.rglob("*"):
        if file.is_file():
            file.unlink()


DAMAGES = [damage_missing, damage_truncated, damage_changed, damage_no_marker, damage_torn_marker, damage_emptied]


def test_the_newest_by_number_is_taken(folder):
    assert newest_complete(folder) == folder / "checkpoint-10"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_moved_aside_and_kept(damage, folder):
    damage(folder / "checkpoint-10")
    assert not is_complete(folder / "checkpoint-10")
    assert newest_complete(folder) == folder / "checkpoint-9"
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["checkpoint-2", "checkpoint-9", "damaged-checkpoint-10"]


def test_a_second_damaged_one_of_a_number_gets_another_name(folder):
    (folder / "damaged-checkpoint-10").mkdir()
    damage_missing(folder / "checkpoint-10")
    newest_complete(folder)
    assert (folder / "damaged-checkpoint-10.1").is_dir()


def test_where_none_is_whole_there_is_none(folder, tmp_path):
    for checkpoint in folder.glob("checkpoint-*"):
        damage_missing(checkpoint)
    assert newest_complete(folder) is None
    assert newest_complete(tmp_path / "absent") is None
