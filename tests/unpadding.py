"""Batches back to the sequences they hold."""

from collections.abc import Sequence

from studykit.chat import Encoded
from studykit.collate import Batch


def unpadded(batches: Sequence[Batch]) -> Encoded:
    """Return the sequences of batches, without their padding."""
    ids, masks = [], []
    for batch in batches:
        for row, real, loss_mask in zip(batch.input_ids, batch.attention_mask.bool(), batch.loss_mask, strict=True):
            ids.append(row[real].int().numpy())
            masks.append(loss_mask[real].numpy())
    return Encoded.of(ids, masks)
