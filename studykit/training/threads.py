"""The number of threads that a training computes with: the fewest that are about as fast as any, measured once.

    with chosen_threads(training, planned) as threads:     # None on an accelerator
        train_steps(training, planned, ...)

Small models are slower on many threads than on one. Another number of threads may also round differently, so the
choice is stored on disk under everything it depends on: resumed and repeated runs compute with the same number. Several
processes of one run take what they may use, unmeasured.
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

import numpy as np
import torch
from transformers.utils.generic import is_flash_attention_requested

from studykit.collate import Batch, PlannedBatches
from studykit.files import cache_folder, replacing
from studykit.models.states import unwrap
from studykit.results.environment import processor
from studykit.training.loop import cross_entropy
from studykit.training.state import Training

_AS_FAST = 1.05
_TOO_SLOW = 2.0
_MEASURED_S = 0.4
_ROUNDS = 7


@contextmanager
def chosen_threads(training: Training, planned: PlannedBatches) -> Iterator[int | None]:
    """Compute with the chosen number of threads inside the block, and yield it; None where an accelerator computes."""
    accelerator = training.accelerator
    if accelerator.device.type != "cpu":
        yield None
        return
    before = torch.get_num_threads()
    try:
        threads = _choose(training, planned) if accelerator.num_processes == 1 else allowance()
        torch.set_num_threads(threads)
        yield threads
    finally:
        torch.set_num_threads(before)


def allowance() -> int:
    """Return the number of threads this process may use: OMP_NUM_THREADS or its cores, and at most torch's current."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(int(wanted) if wanted.isdigit() else cores, torch.get_num_threads()))


def fewest_as_fast(step: Callable[[], None], maximum: int) -> int:
    """Return the fewest threads among 1, 2, 4 ... `maximum` whose best time is within 5% of the best of all.

    Numbers are tried downwards until one takes twice the best time. Those below that limit are timed again in turns
    while time allows. A large model so costs one step for each number and one more.
    """
    times: dict[int, float] = {}
    started = time.monotonic()
    _time(step, maximum)
    for threads in sorted({maximum, *(1 << n for n in range(maximum.bit_length()))}, reverse=True):
        times[threads] = _time(step, threads)
        if times[threads] > _TOO_SLOW * min(times.values()):
            break
    for _ in range(_ROUNDS):
        if time.monotonic() - started > _MEASURED_S:
            break
        for threads in [t for t, best in times.items() if best <= _TOO_SLOW * min(times.values())]:
            times[threads] = min(times[threads], _time(step, threads))
    return min(threads for threads, best in times.items() if best <= _AS_FAST * min(times.values()))


def _time(step: Callable[[], None], threads: int) -> float:
    torch.set_num_threads(threads)
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _choose(training: Training, planned: PlannedBatches) -> int:
    maximum = allowance()
    if maximum == 1:
        return 1
    widths = [int(planned.encoded.lengths[rows].max()) for rows in planned.plan]
    batch = planned[int(np.argsort(widths, kind="stable")[len(widths) // 2])]
    folder = cache_folder("threads")
    file = folder / f"{_key(training, batch, maximum)}.json"
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two that measure at once slow each other down, and may not agree
        threads = _stored(file, maximum)
        if threads is None:
            threads = _measure(training, batch, maximum)
            with replacing(file) as temporary:
                temporary.write_text(json.dumps({"threads": threads}), encoding="utf-8")
    return threads


def _stored(file: Path, maximum: int) -> int | None:
    """Return the number that an earlier measurement chose; None without a readable one."""
    try:
        threads = json.loads(file.read_text(encoding="utf-8"))["threads"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return threads if isinstance(threads, int) and 1 <= threads <= maximum else None


def _measure(training: Training, batch: Batch, maximum: int) -> int:
    """Time forward and backward passes on one batch; random state, gradients and mode are left as they were."""
    model = training.context.student

    def step() -> None:
        cross_entropy(training, batch).backward()
        model.zero_grad(set_to_none=True)

    was_training = model.training
    model.train()
    try:
        with torch.random.fork_rng(devices=[]):
            return fewest_as_fast(step, maximum)
    finally:
        model.train(was_training)


def _key(training: Training, batch: Batch, maximum: int) -> str:
    """Return the hash of what a time depends on: shapes and settings, not the names of models."""
    model = unwrap(training.student)
    architecture = [
        type(model).__name__,
        is_flash_attention_requested(model.config),
        training.spec.padding_free,
        [(name, list(p.shape), str(p.dtype), p.requires_grad) for name, p in model.named_parameters()],
        any(getattr(module, "gradient_checkpointing", False) for module in model.modules()),
        training.bf16,
    ]
    machine = [torch.__version__, platform.machine(), processor(), maximum]
    content = json.dumps([architecture, list(batch.input_ids.shape), machine])
    return hashlib.sha256(content.encode()).hexdigest()[:32]
