"""Held-out items that a run is trained on: a score on them says what was memorised, not what was learned."""

import logging
from collections.abc import Sequence

from studykit.errors import InputError
from studykit.spec import Data
from studykit.training.resolved import ResolvedEvaluation, ResolvedRun

_LOG = logging.getLogger(__name__)


def check_overlap(run: ResolvedRun) -> None:
    """Refuse an evaluation in which nothing is held out, unless it names the training split itself; log what overlaps.

    Raises:
        InputError: another split or file, and yet all of its items are trained on.
    """
    trained_on = [_split_of(data) for stage in run.stages for data, _ in stage.spec.parts]
    for evaluation, known in zip(run.evaluations, count_overlaps(run, run.evaluations), strict=True):
        items = len(evaluation.held_out)
        if known and known == items and _split_of(evaluation.spec.data) not in trained_on:
            raise InputError(
                f"evaluation.data: all {items:,} held-out items are trained on too (a file without splits?): "
                "name another split or file, or leave the evaluation out"
            )
        if known:
            _LOG.warning("%s of %s held-out items are trained on too: their scores mean little", known, items)


def count_overlaps(run: ResolvedRun, evaluations: Sequence[ResolvedEvaluation]) -> list[int]:
    """Return how many items of each evaluation are trained on too, by text without regard to case and whitespace."""
    if not evaluations:
        return []
    trained = {example.plain_text for stage in run.stages for example in stage.data.examples}
    return [sum(item.plain_text in trained for item in evaluation.held_out) for evaluation in evaluations]


def _split_of(data: Data) -> tuple[str, str, str]:
    return data.source, data.split, repr(sorted(data.options.items()))
