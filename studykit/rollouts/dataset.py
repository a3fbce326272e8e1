"""The answers that came with the data."""

from studykit.collate import Batch
from studykit.rollouts import RolloutContext

KEEPS_ROWS = True


def dataset(batch: Batch, context: RolloutContext) -> Batch:
    """Return the batch unchanged; it costs nothing."""
    return batch
