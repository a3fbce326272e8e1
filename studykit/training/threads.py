"""How many threads a training computes with: the fewest that are as fast as any, measured once and then kept.

    with chosen_threads(trainer) as threads:     # None on an accelerator
        trainer.train()

Small models are slower on many threads than on one. Another number of threads may also round differently, so that the
choice is kept on disk by all it depends on: a resumed run and a repeated one compute with the number of the first.
"""

import fcntl
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studykit.collate import Batch
from studykit.files import cache_folder, replacing
from studykit.models.states import unwrap
from studykit.training.loop import DistillTrainer

_AS_FAST = 1.05
_HOPELESS = 2.0
_SECONDS = 0.4
_ROUNDS = 7


@contextmanager
def chosen_threads(trainer: DistillTrainer) -> Iterator[int | None]:
    """Compute with the chosen number of threads for a while, and yield it; None where an accelerator computes."""
    if trainer.args.device.type != "cpu":
        yield None
        return
    before = torch.get_num_threads()
    try:
        threads = _choice(trainer)
        torch.set_num_threads(threads)
        yield threads
    finally:
        torch.set_num_threads(before)


def allowance() -> int:
    """Return how many threads this process may use: OMP_NUM_THREADS, else its cores; never more than torch has now."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(int(asked) if asked.isdigit() else cores, torch.get_num_threads()))


def fewest_as_fast(step: Callable[[], None], most: int) -> int:
    """Return the fewest threads among 1, 2, 4 ... `most` whose best time is within 5% of the best of all.

    Fewer and fewer threads are tried until they are hopeless; those that are not are timed in turns while time allows,
    so that a large model costs one step for each number and one more.
    """
    times: dict[int, float] = {}
    started = time.monotonic()
    _time(step, most)
    for threads in sorted({most, *(1 << n for n in range(most.bit_length()) if 1 << n <= most)}, reverse=True):
        times[threads] = _time(step, threads)
        if times[threads] > _HOPELESS * min(times.values()):
            break
    for _ in range(_ROUNDS):
        if time.monotonic() - started > _SECONDS:
            break
        for threads in [t for t, best in times.items() if best <= _HOPELESS * min(times.values())]:
            times[threads] = min(times[threads], _time(step, threads))
    return min(threads for threads, best in times.items() if best <= _AS_FAST * min(times.values()))


def _time(step: Callable[[], None], threads: int) -> float:
    torch.set_num_threads(threads)
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _choice(trainer: DistillTrainer) -> int:
    most = allowance()
    if most == 1:
        return 1
    planned: Any = trainer.train_dataset
    widths = [int(planned.encoded.lengths[rows].max()) for rows in planned.plan]
    batch = Batch(**planned[int(np.argsort(widths, kind="stable")[len(widths) // 2])])
    folder = cache_folder("threads")
    file = folder / f"{_key(trainer, batch, most)}.json"
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two that measure at once slow each other down, and may not agree
        threads = _kept(file, most)
        if threads is None:
            threads = _measured(trainer, batch, most)
            with replacing(file) as temporary:
                temporary.write_text(json.dumps({"threads": threads}), encoding="utf-8")
    return threads


def _kept(file: Path, most: int) -> int | None:
    """Return what an earlier measurement chose; None where nothing readable is left of it."""
    try:
        threads = json.loads(file.read_text(encoding="utf-8"))["threads"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return threads if isinstance(threads, int) and 1 <= threads <= most else None


def _measured(trainer: DistillTrainer, batch: Batch, most: int) -> int:
    """Time forward and backward passes on one batch; random state, gradients and mode are left as they were."""
    model: Any = trainer.model

    def step() -> None:
        with trainer.accelerator.autocast():
            loss = trainer.cross_entropy(batch)
        loss.backward()
        model.zero_grad(set_to_none=True)

    was_training = model.training
    model.train()
    try:
        with torch.random.fork_rng(devices=[]):
            return fewest_as_fast(step, most)
    finally:
        model.train(was_training)


def _key(trainer: DistillTrainer, batch: Batch, most: int) -> str:
    """Return the hash of what a time depends on: names and places of models are no part of it."""
    model = unwrap(trainer.model)
    architecture = [
        type(model).__name__,
        model.config._attn_implementation,
        getattr(model, "padding_free", None),
        [(name, list(p.shape), str(p.dtype), p.requires_grad) for name, p in model.named_parameters()],
        any(getattr(module, "gradient_checkpointing", False) for module in model.modules()),
        trainer.args.bf16,
    ]
    machine = [torch.__version__, platform.machine(), _processor(), most]
    content = json.dumps([architecture, list(batch.input_ids.shape), machine])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
