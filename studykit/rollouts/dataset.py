"""Train on the answers that came with the data."""

from studykit.rollouts import RolloutContext
from studykit.teacher import Batch


def dataset(batch: Batch, context: RolloutContext) -> Batch:
    """Return the batch as it is; it costs nothing."""
    return batch
