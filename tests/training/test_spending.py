"""The cost of a run that was killed is not less than what was computed: attempts and lost work are counted."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from studykit.data import Inputs
from studykit.files.leases import LeaseLost
from studykit.generation.cost import Cost
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.teacher import cached
from studykit.training import loop, train
from studykit.training.resolved import ResolvedRun
from studykit.training.spending import Spending

KILLED = -signal.SIGKILL


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def train_until_killed(spec: RunSpec, folder: Path, root: Path, step: int, every_s: float) -> None:
    """Train, and die inside a step."""
    torch.set_num_threads(1)
    compute_loss = loop.compute_loss
    loop.compute_loss = lambda training, *rest: die() if training.step == step else compute_loss(training, *rest)
    train(pin(spec, Inputs(root)), folder, checkpoint_every_s=every_s)


def capture_until_killed(spec: RunSpec, folder: Path, root: Path, batches: int) -> None:
    """Capture the teacher in shards of one batch, and die before one of them."""
    torch.set_num_threads(1)
    cached._SHARD_POSITIONS = 1
    teachers: Any = cached.CachedTeacher
    compute, seen = teachers.compute, []

    def deadly(self, *rest):
        seen.append(rest)
        return die() if len(seen) > batches else compute(self, *rest)

    teachers.compute = deadly
    train(pin(spec, Inputs(root)), folder)


def spent(folder: Path) -> dict[str, float]:
    return Spending(folder / "checkpoints" / "stage-0")._last


def tokens_of(run: ResolvedRun, steps: int) -> int:
    """Return the tokens of the first steps, padding apart."""
    lengths = run.stages[0].data.encoded.lengths
    return sum(int(lengths[rows].sum()) for rows in run.stages[0].plan()[:steps])


@pytest.fixture
def folders(tmp_path):
    made = [tmp_path / "whole", tmp_path / "killed"]
    for folder in made:
        folder.mkdir()
    return made


def test_steps_that_are_taken_again_are_failed_work(folders, plain_spec, stage, in_process, results_root):
    spec = RunSpec.parse(plain_spec(stage("kd", steps=6)))
    (whole, killed), run = folders, pin(spec, Inputs(results_root))
    uninterrupted = train(run, whole).cost
    for step in (3, 2):  # no checkpoint: both start at the first step
        assert in_process(train_until_killed, spec, killed, results_root, step, 1e9) == KILLED
    noted = spent(killed)
    assert noted["failed_student_tokens"] == tokens_of(run, 3)  # all of them, though little time has passed
    assert noted["student_tokens"] == tokens_of(run, 2)
    cost = train(run, killed).cost
    assert (uninterrupted["attempts"], cost["attempts"]) == (1, 3)
    assert not [name for name in uninterrupted if name.startswith("failed_")]
    for name in ("student_tokens", "teacher_tokens"):
        assert cost[name] == uninterrupted[name]
        assert cost[f"failed_{name}"] == noted[f"failed_{name}"] + noted[name]
    assert cost["failed_s"] > noted["failed_s"] > 0


def test_what_a_checkpoint_holds_is_not_lost(folders, plain_spec, stage, in_process, results_root):
    spec, (whole, killed) = RunSpec.parse(plain_spec(stage(steps=6), teacher=False)), folders
    run = pin(spec, Inputs(results_root))
    assert in_process(train_until_killed, spec, killed, results_root, 3, 0.0) == KILLED
    cost = train(run, killed).cost
    assert cost["student_tokens"] == train(run, whole).cost["student_tokens"]
    assert cost.get("failed_student_tokens", 0) == 0
    assert cost["attempts"] == 2


def test_a_capture_that_was_killed_half_way_counts_from_its_beginning(
    folders, plain_spec, stage, in_process, results_root, empty_cache
):
    spec = RunSpec.parse(plain_spec(stage("kd", steps=2, batch_size=24), top_k=4))
    (_, killed), run = folders, pin(spec, Inputs(results_root))
    assert in_process(capture_until_killed, spec, killed, results_root, 1) == KILLED
    first = spent(killed)["teacher_tokens"]
    assert first > 0
    cost = train(run, killed).cost
    assert cost["teacher_tokens"] == int(run.stages[0].data.encoded.lengths.sum())
    assert cost["teacher_tokens"] > first
    assert cost["attempts"] == 2


def test_damaged_notes_stop_nothing(tmp_path):
    (tmp_path / "spent.json").write_text('{"attempts": 2, "cos')
    notes = Spending(tmp_path)
    assert (notes.attempts, notes.prepared, notes.lost({})) == (1, None, {})


def test_what_was_written_over_in_place_counts_where_it_is_whole_and_newer(tmp_path):
    notes, cost = Spending(tmp_path), Cost(student_tokens=5)
    notes.begin(cost)
    cost.add(student_tokens=10**6)
    notes.note(cost, "train_s")
    assert Spending(tmp_path).lost(cost) == {}
    assert Spending(tmp_path).lost({"train_s": 1e9})["failed_student_tokens"] == 10**6 + 5
    since = tmp_path / "spent-since.json"
    written = since.read_bytes()
    since.write_bytes(written.replace(b'"attempts": 1', b'"attempts": 2'))  # of another process
    assert Spending(tmp_path).lost({"train_s": 1e9})["failed_student_tokens"] == 5
    since.write_bytes(written[:40])
    assert Spending(tmp_path).lost({"train_s": 1e9})["failed_student_tokens"] == 5
    notes.close()


def test_a_process_that_has_lost_its_run_notes_nothing_more(tmp_path):
    def lost(done, total):
        raise LeaseLost("taken over")

    spending = Spending(tmp_path)
    spending.begin()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(LeaseLost):
        spending.follow(lost, Cost(student_tokens=9), "train_s")(1, 2)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    spending.follow(lambda done, total: None, Cost(student_tokens=9), "train_s")(1, 2)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} != before
