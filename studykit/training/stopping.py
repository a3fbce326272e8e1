"""SIGTERM during a training: the step is finished and a checkpoint saved before the process ends.

A scheduler sends it before it takes a machine away, and a batch when it is interrupted.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(KeyboardInterrupt):
    """The training was stopped from outside; started again, it goes on from its checkpoint."""


@contextmanager
def until_stopped() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM was received in the block, where it no longer ends the process.

    Outside the main thread, which alone receives signals, it always returns False.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
