"""Held-out items that a run is trained on: a score on them measures memory instead of learning."""

import logging
from collections.abc import Iterable

from studykit.errors import InputError
from studykit.sources import Example
from studykit.training.resolved import ResolvedRun

_LOG = logging.getLogger(__name__)


def check_overlap(run: ResolvedRun) -> int:
    """Return how many held-out items are also trained on, by text, and log it unless it is 0.

    Texts are compared without regard to case and whitespace.

    Raises:
        InputError: all of them are, so that nothing is held out.
    """
    trained = {text for stage in run.stages for text in _texts(stage.data.examples)}
    items = list(_texts(run.held_out))
    known = sum(text in trained for text in items)
    if items and known == len(items):
        raise InputError(
            f"evaluation.data: all {known:,} held-out items are trained on too (one file without splits may serve "
            "both): name another split or file, or leave the evaluation out"
        )
    if known:
        _LOG.warning("%s of %s held-out items are trained on too: their scores mean little", known, len(items))
    return known


def _texts(examples: Iterable[Example]) -> Iterable[str]:
    return (" ".join("\n".join(m["content"] for m in e.messages).casefold().split()) for e in examples)
