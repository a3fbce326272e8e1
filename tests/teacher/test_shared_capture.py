"""Processes that capture the same pool at the same time, or are killed while they do."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from unpadding import unpadded

from studykit import files
from studykit.chat import encode
from studykit.collate import each_example_once
from studykit.models.names import Models
from studykit.spec import Teacher
from studykit.teacher import batch_invariant, cached, open_teacher
from studykit.teacher.store import as_keys

V, K = 85, 8


def capture(folder: str, rows: list[int], examples: list, deadly: bool, peers: list[str]) -> None:
    """Capture examples one by one, a shard each; a deadly capture is killed while its third shard is half written.

    `peers` names a file of this process and those of the processes that it waits for before it starts.
    """
    torch.set_num_threads(1)
    model = Models().find(folder)
    tokenizer = model.tokenizer
    batch_invariant._TOKENS = 1
    teacher = open_teacher(Teacher(name=folder, top_k=K, sha256="a"), model, tokenizer, V)
    assert isinstance(teacher, cached.CachedTeacher)
    batches = each_example_once(encode([examples[i] for i in rows], tokenizer, 64), 2, tokenizer.pad_token_id)
    cached._SHARD_POSITIONS = 1
    flushes = []

    def kill(path):
        flushes.append(path)
        if len(flushes) == 5:  # two of each shard: the file, then its folder
            path.write_bytes(path.read_bytes()[:100])
            os.kill(os.getpid(), signal.SIGKILL)

    if deadly:
        files._flush = kill
    if peers:
        Path(peers[0]).touch()
        while not all(Path(other).exists() for other in peers):
            time.sleep(0.001)
    teacher.prepare(unpadded(batches), (lambda done, total: time.sleep(0.02)) if peers else None)
    if peers:
        Path(peers[0]).write_text(json.dumps(teacher.cost))


@pytest.fixture
def reopened(teacher_folder, tokenizer, empty_cache, monkeypatch):
    """Open the teacher on disk with the cache that processes wrote."""
    monkeypatch.setattr(batch_invariant, "_TOKENS", 1)

    model = Models().find(str(teacher_folder))

    def make():
        return open_teacher(Teacher(name=model.name, top_k=K, sha256="a"), model, tokenizer, V)

    return make


@pytest.fixture
def batches(examples, tokenizer):
    def make(count):
        return each_example_once(encode(examples[:count], tokenizer, 64), 4, tokenizer.pad_token_id)

    return make


def tokens_by_key(batches) -> dict[str, int]:
    return {key: n for b in batches for key, n in zip(b.keys, b.attention_mask.sum(1).tolist(), strict=True)}


def stored(teacher, keys) -> np.ndarray:
    teacher.store.want(as_keys(keys))
    teacher.store.refresh()
    return teacher.store.has(as_keys(keys))


@pytest.mark.slow
def test_a_capture_that_is_killed_leaves_what_it_had_written(reopened, examples, start, join, teacher_folder, batches):
    process = start(capture, str(teacher_folder), list(range(12)), examples, True, [])
    assert join(process) == -signal.SIGKILL
    teacher = reopened()
    assert len(list(teacher.store.folder.glob("[!.]*.safetensors"))) == 2
    assert len(list(teacher.store.folder.glob(".*.safetensors"))) == 1
    tokens = tokens_by_key(batches(12))
    there = stored(reopened(), list(tokens))
    assert there.sum() == 2
    teacher.prepare(unpadded(batches(12)))
    assert teacher.cost["teacher_tokens"] == sum(np.array(list(tokens.values()))[~there])
    assert stored(teacher, list(tokens)).all()


def test_processes_with_overlapping_pools_may_capture_at_once(reopened, examples, start, join, teacher_folder, batches):
    rows = [list(range(0, 24)), list(range(12, 36))]
    workers = [start(capture, str(teacher_folder), part, examples, False, []) for part in rows]
    assert [join(worker) for worker in workers] == [0, 0]
    teacher = reopened()
    teacher.prepare(unpadded(batches(36)))
    assert teacher.cost["teacher_tokens"] == 0


def test_processes_share_the_work(reopened, examples, start, join, teacher_folder, batches, tmp_path, monkeypatch):
    files = [str(tmp_path / name) for name in "ab"]
    peers = [files, files[::-1]]
    workers = [start(capture, str(teacher_folder), list(range(40)), examples, False, names) for names in peers]
    assert [join(worker) for worker in workers] == [0, 0]
    asked = [json.loads(Path(file).read_text())["teacher_tokens"] for file in files]
    whole = batches(40)
    tokens = tokens_by_key(whole)
    once = sum(tokens.values())
    assert min(asked) > 0.25 * once
    assert once <= sum(asked) < 1.5 * once
    shared = reopened()
    shared.prepare(unpadded(whole))
    assert shared.cost["teacher_tokens"] == 0
    monkeypatch.setenv("STUDYKIT_CACHE", str(tmp_path / "alone"))
    alone = reopened()
    alone.prepare(unpadded(whole))
    assert alone.cost["teacher_tokens"] == once
    for one, other in zip(*(teacher.store.read(as_keys(list(tokens))) for teacher in (shared, alone)), strict=True):
        assert np.array_equal(one, other)
