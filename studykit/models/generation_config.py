"""A generation configuration that can be saved again: transformers refuses a changed one whose fields contradict."""

from typing import Any


def make_savable(config: Any) -> None:
    """Turn sampling on where a temperature or another setting of sampling is set without it, as in many models.

    Raises:
        ValueError: fields contradict each other otherwise.
    """
    try:
        config.validate(strict=True)
    except ValueError:
        config.do_sample = True
        config.validate(strict=True)
