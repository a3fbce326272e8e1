"""The processes of one run, which `accelerate launch`, torchrun or `--processes` has started: all work, one writes.

    join()                                      # first of all, in each of them
    found = agree(lambda: read(file))           # the main process looks; all get what it found, or its error
    pinned = main_first(lambda: pin(spec))      # all do it, the main process before the others

Every process has the whole of each micro-batch and of a rollout's state, generates a part of its answers, and computes
the loss of every n-th row. So the steps of a run are those of one process, but for the rounding of sums in another
order; exceptions are named by `note_differences`.
"""

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from studykit.errors import InputError
from studykit.models import zero
from studykit.models.loading import device
from studykit.models.sharding import take_over
from studykit.training.resolved import ResolvedRun

_LOG = logging.getLogger(__name__)
_PATIENCE = timedelta(days=7)
"""Longest wait of a process for another one: the main process may hold back for a run that is taken."""

T = TypeVar("T")


def are_several() -> bool:
    """Whether this process is one of several that a launcher has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join() -> None:
    """Meet the other processes of the run; without any, nothing happens.

    Raises:
        InputError: a launcher's configuration that is not supported.
    """
    take_over()
    if are_several():
        state = PartialState(cpu=device().type == "cpu", timeout=_PATIENCE)
        if not state.is_main_process:
            logging.getLogger("studykit").setLevel(logging.ERROR)  # the main process says it already


def leave() -> None:
    """Part from the other processes, at the end of this one."""
    if are_several():
        PartialState().destroy_process_group()


def count() -> int:
    """Return the number of processes of the run."""
    return PartialState().num_processes if are_several() else 1


def index() -> int:
    """Return the number of this process, from 0 on."""
    return PartialState().process_index if are_several() else 0


def wait() -> None:
    """Wait for all processes."""
    if are_several():
        PartialState().wait_for_everyone()


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return not are_several() or PartialState().is_main_process


def agree(make: Callable[[], T]) -> T:
    """Return, in all processes, what the main process alone computes; its error is raised in all of them, too."""
    if not are_several():
        return make()
    outcome: list = [None, None]
    if is_main():
        try:
            outcome[0] = make()
        except Exception as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def main_first(make: Callable[[], T]) -> T:
    """Return what every process computes for itself, the main process before the others, which find its files."""
    made: list[T] = []
    agree(lambda: made.append(make()))
    return made[0] if made else make()


def check_shares(run: ResolvedRun, processes: int) -> None:
    """Refuse a run that several processes cannot share.

    Raises:
        InputError: a batch that does not divide, answers that an engine generates, or an optimizer that DeepSpeed has.
    """
    if processes == 1:
        return
    for size in (stage.spec.batch_size for stage in run.stages if stage.spec.batch_size % processes):
        smaller = size - size % processes
        near = f"{smaller} or {smaller + processes}" if smaller else f"{processes}"
        raise InputError(f"batch_size {size} does not divide by {processes} processes: take {near}")
    if any(teacher and (teacher[0].engine or teacher[0].device_map) for teacher in map(run.teacher_of, run.stages)):
        raise InputError(
            "teacher.engine and teacher.device_map serve one process: leave them out, or start one process"
        )
    applied = [name for stage in run.stages for name in stage.spec.acting_on("optimizer")]
    if applied and zero.is_chosen():
        raise InputError(
            f"{applied[0]} is applied to an optimizer that DeepSpeed replaces: take studykit/training/fsdp2.yaml, or "
            "leave it out"
        )


def note_differences(run: ResolvedRun, processes: int) -> None:
    """Log what is computed otherwise than by one process."""
    for loss in {recipe.loss for stage in run.stages for recipe in stage.recipes if recipe.parts[0].couples_rows}:
        _LOG.warning(
            "loss %s compares the tokens of a batch with each other: each of the %s processes compares those of its "
            "own rows, so that the result depends on their number",
            *(loss, processes),
        )
