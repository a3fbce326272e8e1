"""A run by two processes and the same run by one: start it, interrupt it, and compare what came of it."""

import gc
import importlib
import json
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from safetensors.torch import load_file

from studykit.training import loop, train

running: Any = importlib.import_module("studykit.study.run")  # the package has the function of that name

COUNTED = (
    "student_tokens",
    "padding_tokens",
    "teacher_tokens",
    "generated_tokens",
    "scored_tokens",
    "cached_positions",
)
CURVE = ("loss", "grad_norm", "ce_loss", "kd_loss", "mean_token_accuracy", "num_tokens", "answer_length", "accepted")


def start_two(work: Callable, *arguments: Any) -> list[int]:
    """Call a function as two processes, with number, port and the arguments; return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [processes.start(work, rank, port, *arguments) for rank in (0, 1)]
    return [processes.join(process) for process in started]


def become(rank: int, port: int, root: Path) -> None:
    """Make this process one of two, which save a checkpoint after every step."""
    gc.freeze()  # each end of a training asks for a collection
    torch.set_num_threads(1)
    running.train = partial(train, checkpoint_every_s=0.0)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ["STUDYKIT_CACHE"] = str(root / "cache")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")


def interrupt(error: Callable[[], None]) -> Callable[[], None]:
    """Let the next run end with an error in the middle of its third step; the result takes that back."""
    compute_loss = loop.compute_loss

    def deadly(training, batch, denominator):
        if training.step == 2:
            error()
        return compute_loss(training, batch, denominator)

    loop.compute_loss = deadly
    return lambda: setattr(loop, "compute_loss", compute_loss)


def fail() -> None:
    raise RuntimeError("interrupted")


def found(root, name, specs, case):
    """Return record, curve, weights and items of a case in a study."""
    (folder,) = (root / name / "runs").glob(run_id(root, specs[case]))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    (items,) = folder.glob("evaluations/*/items.jsonl")
    answers = [json.loads(line) for line in items.read_text(encoding="utf-8").splitlines()]
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return record, lines, load_file(folder / "model" / "model.safetensors"), answers


def run_id(root, spec):
    from studykit.spec import RunSpec
    from studykit.study.pin import pin

    return pin(RunSpec.parse(spec), root).run_id


def assert_equal(one, other, counted=True):
    """Assert that two runs are equal but for rounding."""
    for line, expected in zip(other[1], one[1], strict=True):
        for key in set(CURVE) & set(expected):
            assert line[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-6), key
    for key, expected in one[2].items():
        # a hundredth of one step of the learning rate: AdamW divides gradients of rounding's size by their size
        torch.testing.assert_close(other[2][key], expected, rtol=1e-4, atol=1e-4)
    for item, expected in zip(other[3], one[3], strict=True):
        assert item["answer"] == expected["answer"]
        assert item["reference_nll"] == pytest.approx(expected["reference_nll"], rel=1e-4)
    if counted:
        assert {k: other[0]["cost"].get(k) for k in COUNTED} == {k: one[0]["cost"].get(k) for k in COUNTED}
    assert [part["trained_on"] for part in other[0]["data"]] == [part["trained_on"] for part in one[0]["data"]]
