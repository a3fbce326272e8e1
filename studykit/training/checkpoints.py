"""Checkpoints that are complete or ignored: the marker, written last, holds the hashes of all files.

    save(folder, step, shared, own, accelerator)
    checkpoint = newest_complete(folder)
    state = load(checkpoint, accelerator)

Resuming from a checkpoint that lost a file would end with other weights, without an error. Here a checkpoint counts
only if its marker is there and every file matches it; damaged ones are moved aside.
"""

import hashlib
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from studykit.files import replacing
from studykit.models.sharding import whole

SHARE = 0.03
"""Most of the wall time that checkpoints may take."""

_BYTES_PER_S = 2e8
"""Written and hashed: the guess for the first checkpoint, before one was measured."""

MARKER = "complete.json"
SHARED = "training.pt"
KEPT = 2


class Pace:
    """When the next checkpoint is due: after some time, and later where saving takes long.

    The time is counted from the end of a save, so that checkpoints take no more than their share of the wall time.

    Args:
        every_s: least wall time between two checkpoints; 0 saves after every step, however long it takes.
        share: of the wall time that checkpoints may take, in (0, 1].
        size_bytes: of a checkpoint; a guess of how long the first one takes.
        clock: seconds.
    """

    def __init__(self, every_s: float, share: float, size_bytes: int, clock: Callable[[], float] = time.monotonic):
        self._every_s, self._share, self._clock = every_s, share, clock
        self._saved_s = clock()
        self._wait_s = self._wait_after(size_bytes / _BYTES_PER_S)

    def is_due(self) -> bool:
        """Whether a checkpoint is due."""
        return self._clock() - self._saved_s >= self._wait_s

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure how long the block takes, which saves a checkpoint."""
        started = self._clock()
        yield
        self._saved_s = self._clock()
        self._wait_s = self._wait_after(self._saved_s - started)

    def _wait_after(self, save_s: float) -> float:
        return max(self._every_s, save_s * (1 / self._share - 1)) if self._every_s else 0.0


def save(folder: Path, step: int, shared: dict[str, Any], own: dict[str, Any], accelerator: Accelerator) -> None:
    """Write the checkpoint of an optimizer step and delete all but the newest two.

    Args:
        folder: of all checkpoints of a stage.
        step: optimizer steps taken.
        shared: state that is the same in every process; written once.
        own: state that each process has for itself: random numbers of dropout, and sums over its rows.
        accelerator: knows the processes.
    """
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    torch.save(own, checkpoint / _own_file(accelerator))
    if accelerator.is_main_process:
        torch.save(shared, checkpoint / SHARED)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        mark_complete(checkpoint)
        for old in _newest_first(folder)[KEPT:]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()  # the end of one may end all


def load(checkpoint: Path, accelerator: Accelerator) -> dict[str, Any]:
    """Return the state of this process, on the CPU: what is shared, and what `load_own` returns."""
    return torch.load(checkpoint / SHARED, map_location="cpu", weights_only=True) | load_own(checkpoint, accelerator)


def load_own(checkpoint: Path, accelerator: Accelerator) -> dict[str, Any]:
    """Return the state that this process has for itself, on the CPU.

    Of n processes, whatever the number of those that saved, process i goes on from the states of i, i + n, i + 2n, ...:
    with the first one's random numbers and the sums of all.
    """
    files = sorted(checkpoint.glob("process-*.pt"), key=lambda file: int(file.stem.partition("-")[2]))
    taken = files[accelerator.process_index :: accelerator.num_processes]
    states = [torch.load(file, map_location="cpu", weights_only=True) for file in taken]
    for other in states[1:]:
        _add_to(states[0]["cost"], {name: n for name, n in other["cost"].items() if not name.endswith("_s")})
        _add_to(states[0]["averages"]["sums"], other["averages"]["sums"])
        states[0]["averages"]["loss"] += other["averages"]["loss"]
    return states[0] if states else {"cost": {}, "averages": None, "random": None}


def _add_to(sums: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        sums[name] = sums.get(name, 0) + value


def mark_complete(checkpoint: Path) -> None:
    """Write the marker: the sha256 of every file in the checkpoint."""
    hashes = {name: _sha256(checkpoint / name) for name in _files(checkpoint)}
    with replacing(checkpoint / MARKER) as temporary:
        temporary.write_text(json.dumps(hashes, indent=1, sort_keys=True), encoding="utf-8")


def newest_complete(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a folder, or None; damaged ones are renamed to `damaged-*`."""
    for checkpoint in _newest_first(folder):
        if is_complete(checkpoint):
            return checkpoint
        checkpoint.rename(_free_name(folder / f"damaged-{checkpoint.name}"))
    return None


def is_complete(checkpoint: Path) -> bool:
    """Return whether the marker is there and the content of every file matches it."""
    try:
        hashes = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        return all(_sha256(checkpoint / name) == expected for name, expected in hashes.items())
    except (OSError, ValueError):
        return False


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state without its frozen parameters, in full tensors: with adapters, these alone."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    state = model.state_dict(keep_vars=True)
    return {name: whole(value).detach() for name, value in state.items() if name not in frozen}


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of the global random generators, as plain data."""
    numpy_state: Any = np.random.get_state()
    name, key, *rest = numpy_state
    states = {"python": random.getstate(), "numpy": (name, key.tolist(), *rest), "cpu": torch.get_rng_state()}
    return states if device.type == "cpu" else states | {"device": torch.get_device_module(device).get_rng_state()}


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Set the global random generators to what `random_states` returned."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states["device"])


def _own_file(accelerator: Accelerator) -> str:
    return f"process-{accelerator.process_index}.pt"


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda c: int(c.name.partition("-")[2]), reverse=True)


def _files(checkpoint: Path) -> list[str]:
    return sorted(
        str(file.relative_to(checkpoint)) for file in checkpoint.rglob("*") if file.is_file() and file.name != MARKER
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _free_name(wanted: Path) -> Path:
    number, name = 1, wanted
    while name.exists():
        number, name = number + 1, wanted.with_name(f"{wanted.name}.{number}")
    return name
