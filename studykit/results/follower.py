"""Takes the place of the writer of a run or an evaluation in the processes beside the one that writes.

with RunWriter(folder, spec) if is_main else Follower(folder / "runs" / spec.run_id) as run:
    run.finish(cost, data)                       # writes nothing here
"""

from pathlib import Path
from typing import Any, Self


class Follower:
    """A writer that writes nothing.

    Args:
        folder: of the run or of the evaluation, which another process holds.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def write_items(self, lines: Any) -> None:
        """Do nothing."""

    def finish(self, *content: Any, **more: Any) -> None:
        """Do nothing."""
