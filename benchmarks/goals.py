"""Goals of speed and memory: a number of a report and its bound. Torch-free."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """The bound of a measured number.

    Attributes:
        benchmark: the script whose reports have the number.
        title: the number in words, with its unit.
        read: takes the number from a report; returns None where it was not measured.
        bound: the bound.
        at_most: whether the bound is an upper one; otherwise it is a lower one.
        device: the goal is for reports of this device only; None is for all.
        note: a remark shown in the table; without numbers, which are generated.
    """

    benchmark: str
    title: str
    read: Callable[[Report], float | None]
    bound: float
    at_most: bool
    device: str | None = None
    note: str = ""

    def applies_to(self, report: Report) -> bool:
        """Return whether the goal is one for the report's device."""
        return self.device in (None, report.get("settings", {}).get("device"))

    def judge(self, report: Report) -> str:
        """Return `met`, `missed` or `not measured`."""
        value = self.read(report)
        if value is None:
            return "not measured"
        return "met" if (value <= self.bound if self.at_most else value >= self.bound) else "missed"


def read_median(report: Report, contestant: str, key: str) -> float | None:
    """Return the median of a contestant's figure; None where it did not run."""
    return report.get("contestants", {}).get(contestant, {}).get("medians", {}).get(key)


def divide_medians(report: Report, first: tuple[str, str], second: tuple[str, str]) -> float | None:
    """Return the median of one (contestant, key) divided by that of another; None where one was not measured."""
    a, b = read_median(report, *first), read_median(report, *second)
    return None if a is None or not b else a / b


def subtract_medians(report: Report, first: str, second: str, key: str) -> float | None:
    """Return the median of one contestant less that of another; None where one was not measured."""
    a, b = read_median(report, first, key), read_median(report, second, key)
    return None if a is None or b is None else a - b


def divide_at_worst(
    report: Report, first: str, second: str, key: str, at_most: bool = False, frozen: bool | None = None
) -> float | None:
    """Return one contestant's median divided by another's, at the loss and head where the goal is hardest to meet.

    Args:
        report: of the benchmark `head`.
        first: contestant.
        second: contestant that it is divided by.
        key: of the median.
        at_most: whether the goal is an upper bound.
        frozen: only frozen or only trained heads; None is both.
    """
    lines = [line for line in report.get("lines", []) if frozen in (None, line["frozen_head"])]
    ratios = [divide_medians(line, (first, key), (second, key)) for line in lines]
    measured = [ratio for ratio in ratios if ratio is not None]
    if not measured or len(measured) < len(ratios):
        return None
    return max(measured) if at_most else min(measured)


_AT_LEAST = "at the loss where it is least"

GOALS = (
    Goal(
        "head",
        "trl's time to studykit's, trained or frozen head",
        lambda report: divide_at_worst(report, "trl", "studykit", "seconds"),
        3.0,
        at_most=False,
        device="cpu",
        note=_AT_LEAST,
    ),
    Goal(
        "head",
        "plain PyTorch's time to studykit's, trained or frozen head",
        lambda report: divide_at_worst(report, "plain", "studykit", "seconds"),
        1.0,
        at_most=False,
        device="cpu",
        note=_AT_LEAST,
    ),
    Goal(
        "head",
        "studykit's peak memory to plain PyTorch's",
        lambda report: divide_at_worst(report, "studykit", "plain", "gib", at_most=True),
        0.6,
        at_most=True,
        device="cpu",
        note="at the loss where it is most",
    ),
    Goal(
        "head",
        "trl's time to studykit's, trained head",
        lambda report: divide_at_worst(report, "trl", "studykit", "seconds", frozen=False),
        1.5,
        at_most=False,
        device="cuda",
        note=_AT_LEAST,
    ),
    Goal(
        "head",
        "trl's time to studykit's, frozen head",
        lambda report: divide_at_worst(report, "trl", "studykit", "seconds", frozen=True),
        1.6,
        at_most=False,
        device="cuda",
        note=_AT_LEAST,
    ),
    Goal(
        "head",
        "liger-kernel's time to studykit's",
        lambda report: divide_at_worst(report, "liger", "studykit", "seconds"),
        1.0,
        at_most=False,
        device="cuda",
        note=_AT_LEAST,
    ),
    Goal(
        "head",
        "studykit's peak memory to trl's",
        lambda report: divide_at_worst(report, "studykit", "trl", "gib", at_most=True),
        1.0,
        at_most=True,
        device="cuda",
        note="at the loss where it is most",
    ),
    Goal(
        "step",
        "a step of kd with a cached teacher against one of sft, ratio of seconds",
        lambda report: divide_medians(report, ("studykit kd, cached teacher", "seconds"), ("studykit sft", "seconds")),
        1.10,
        at_most=True,
    ),
    Goal(
        "step",
        "kd with a live teacher against trl's GKDTrainer, ratio of tokens per second",
        lambda report: divide_medians(
            report, ("studykit kd, live teacher", "tokens_per_s"), ("trl GKDTrainer", "tokens_per_s")
        ),
        1.5,
        at_most=False,
        note="off-policy, forward KL on both sides, no padding; both run the same layers, so the more these weigh "
        "against the head (a vocabulary of few words, or all layers on a CPU), the less its gain shows. Next ideas: "
        "ragged sequences, which the kit groups by length, and one pass of a small teacher for several steps",
    ),
    Goal(
        "overheads",
        "`results.load` from the index, seconds",
        lambda report: read_median(report, "table", "seconds"),
        1.0,
        at_most=True,
        note="at the number of runs named below",
    ),
    Goal(
        "overheads",
        "`studykit --help`, seconds of the whole process",
        lambda report: read_median(report, "studykit --help", "seconds"),
        0.5,
        at_most=True,
    ),
    Goal(
        "overheads",
        "a notebook of one cell with the imports of notebook 01, seconds from its kernel's start to its end",
        lambda report: read_median(report, "notebook, imports", "seconds"),
        5.0,
        at_most=True,
    ),
    Goal(
        "notebooks",
        "a notebook with its defaults, seconds of the slowest",
        lambda report: read_median(report, "slowest", "seconds"),
        90.0,
        at_most=True,
    ),
    Goal(
        "workers",
        "what a worker adds to an empty notebook, seconds a cell",
        lambda report: subtract_medians(report, "work", "papermill alone", "seconds_per_cell"),
        2.0,
        at_most=True,
    ),
    Goal(
        "workers",
        "two workers' time to that of `--jobs 2`",
        lambda report: divide_medians(report, ("two workers", "seconds"), ("batch --jobs 2", "seconds")),
        1.1,
        at_most=True,
    ),
    Goal(
        "pools",
        "from an index to the first step, seconds of the whole process",
        lambda report: read_median(report, "first step", "seconds"),
        60.0,
        at_most=True,
        note="at the sizes named below",
    ),
    Goal(
        "pools",
        "from an index to the first step, peak GiB",
        lambda report: read_median(report, "first step", "gib"),
        2.0,
        at_most=True,
        note="at the sizes named below",
    ),
    Goal(
        "shared_folder",
        "file operations to take a cell",
        lambda report: read_median(report, "all settings", "most_operations_to_take"),
        10,
        at_most=True,
        note="simulated; the most of all settings",
    ),
    Goal(
        "shared_folder",
        "cells that end twice or not at all",
        lambda report: read_median(report, "all settings", "not_once"),
        0,
        at_most=True,
        note="simulated; the most of all settings",
    ),
)
