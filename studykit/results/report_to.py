"""Which trackers runs are reported to: none by default.

    chosen("trackio, tensorboard")               # ('trackio', 'tensorboard')
    chosen(None)                                 # those of the environment variable STUDYKIT_REPORT_TO

What reports is `studykit.study.trackers`.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec

from studykit.errors import InputError, unknown

REPORT_TO = "STUDYKIT_REPORT_TO"
"""The environment variable that passes the choice to the processes of a batch."""

TRACKERS = {
    "mlflow": "pip install mlflow",
    "tensorboard": "pip install 'studykit[track]'",
    "trackio": "pip install 'studykit[track]'",
    "wandb": "pip install wandb",
}
"""How to install each."""


def chosen(report_to: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of trackers, each once.

    Args:
        report_to: names, or one text with commas between them; "none" for none, None for those of the environment.

    Raises:
        InputError: an unknown name, or a tracker that is not installed.

    >>> chosen("none"), chosen([])
    ((), ())
    >>> chosen("wandbb")
    Traceback (most recent call last):
    studykit.errors.InputError: report_to: unknown tracker 'wandbb'; did you mean 'wandb'?
    """
    given = os.environ.get(REPORT_TO, "") if report_to is None else report_to
    parts = given.split(",") if isinstance(given, str) else given
    names = tuple(dict.fromkeys(name for part in parts if (name := part.strip()) not in ("", "none")))
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"report_to: {unknown('tracker', name, TRACKERS)}")
        if find_spec(name) is None:
            raise InputError(f"report_to: {name} is not installed: {TRACKERS[name]}, or leave it out")
    return names
