"""Show what a run is doing where it was started: one line that changes in a notebook, elsewhere a line a minute.

with showing(None) as show:
    show("training (kd): 120 of 565 steps, 0.21 s/step, about 93 s left")
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Show = Callable[[str], None]
"""Called with one line of text about once a second."""

_EVERY_S = 60.0


@contextmanager
def showing(show: Show | None) -> Iterator[Show]:
    """Yield `show`, or without one what suits the place: a line in a notebook, a line a minute on stderr elsewhere."""
    if show is not None:
        yield show
    elif _in_notebook():
        line = NotebookLine()
        yield line
        line.end()
    else:
        yield LinePerMinute()


def unshown(line: str) -> None:
    """Show nothing."""


class NotebookLine:
    """One output of a notebook's cell that each call replaces, so that an executed notebook keeps the last one."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._handle: Any = None

    def __call__(self, line: str) -> None:
        """Show a line instead of the last one."""
        from IPython.display import display

        content = {"text/plain": line}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def end(self) -> None:
        """Leave the time that it took."""
        self(f"done in {time.monotonic() - self._started:.0f} s")


class LinePerMinute:
    """Lines on stderr, the first after a minute: a log stays short, and short work says nothing.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._printed = clock()

    def __call__(self, line: str) -> None:
        """Print it, unless one was printed within the last minute."""
        if self._clock() - self._printed >= _EVERY_S:
            self._printed = self._clock()
            print(line, file=sys.stderr, flush=True)


def _in_notebook() -> bool:
    """Whether this process is a kernel, which can replace what it has shown."""
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
