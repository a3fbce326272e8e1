"""Held-out items that a run is trained on: a score on them says what was memorised, not what was learned."""

import logging
from collections.abc import Iterable

from studykit.errors import InputError
from studykit.sources import Example
from studykit.spec import Data
from studykit.training.resolved import ResolvedRun

_LOG = logging.getLogger(__name__)


def check_overlap(run: ResolvedRun) -> None:
    """Refuse an evaluation in which nothing is held out, unless it names the training split itself; log what overlaps.

    Raises:
        InputError: another split or file, and yet all of its items are trained on.
    """
    known, items = count_overlap(run), len(run.held_out)
    if run.spec.evaluation is None or not known:
        return
    trained_on = [_split_of(stage.spec.data) for stage in run.stages]
    if known == items and _split_of(run.spec.evaluation.data) not in trained_on:
        raise InputError(
            f"evaluation.data: all {items:,} held-out items are trained on too (a file without splits?): "
            "name another split or file, or leave the evaluation out"
        )
    _LOG.warning("%s of %s held-out items are trained on too: their scores mean little", known, items)


def count_overlap(run: ResolvedRun) -> int:
    """Return how many held-out items are trained on too, by text without regard to case and whitespace."""
    trained = {text for stage in run.stages for text in _texts(stage.data.examples)}
    return sum(text in trained for text in _texts(run.held_out))


def _split_of(data: Data) -> tuple[str, str, str]:
    return data.source, data.split, repr(sorted(data.options.items()))


def _texts(examples: Iterable[Example]) -> Iterable[str]:
    return (" ".join("\n".join(m["content"] for m in e.messages).casefold().split()) for e in examples)
