"""Checkpoints that are whole or not there."""

from types import SimpleNamespace

import pytest

from studykit.training.checkpoints import MARKER, SHARE, Pace, is_complete, mark_complete, newest_complete


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


@pytest.mark.parametrize(("step_s", "save_s"), [(0.5, 0.01), (1.0, 8.0), (30.0, 8.0), (0.2, 40.0)])
def test_checkpoints_take_no_more_than_their_share(step_s, save_s):
    now = SimpleNamespace(s=0.0)
    pace = Pace(60.0, SHARE, size_bytes=int(save_s * 2e8), clock=lambda: now.s)
    saved, saved_s, waits = 0.0, 0.0, []
    for _ in range(30_000):
        now.s += step_s
        if pace.is_due():
            waits.append(now.s - saved_s)
            with pace.saving():
                now.s += save_s
            saved, saved_s = saved + save_s, now.s
        assert saved <= SHARE * now.s + 1e-6
    assert min(waits) >= 60.0
    assert max(waits) <= max(60.0, save_s / SHARE) + step_s  # and no later than that


def test_a_checkpoint_that_takes_longer_than_guessed_delays_the_next():
    now = SimpleNamespace(s=0.0)
    pace = Pace(60.0, 0.1, size_bytes=0, clock=lambda: now.s)
    now.s = 60.0
    assert pace.is_due()
    with pace.saving():
        now.s += 20.0
    for now.s, due in ((259.0, False), (260.0, True)):  # 180 s after the save's end: 20 of 200 s
        assert pace.is_due() == due


def test_without_a_time_between_them_every_step_is_saved():
    pace = Pace(0.0, SHARE, size_bytes=10**12, clock=lambda: 0.0)
    with pace.saving():
        pass
    assert pace.is_due()
