"""The training curve of a run, `metrics.jsonl`: one line per log."""

from pathlib import Path
from typing import Any

import pandas as pd

from studykit.files import read_lines


def read_metrics(folder: Path) -> tuple[pd.DataFrame, int]:
    """Return a run's training curves, one row per log, and the number of damaged lines, which are left out.

    `epochs` is how often the stage's examples have been trained on, on average. Older runs have the share of the
    stage's steps instead, which they call `epoch`; here it is `share_of_steps`.
    """
    lines, damaged = read_lines(folder / "metrics.jsonl")
    whole = [line for line in lines if has_numbers(line)]
    return pd.DataFrame(whole).rename(columns={"epoch": "share_of_steps"}), damaged + len(lines) - len(whole)


def has_numbers(line: dict[str, Any]) -> bool:
    """Whether all values are numbers or missing."""
    return all(value is None or type(value) in (int, float) for value in line.values())
