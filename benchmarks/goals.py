"""Goals of speed and memory: a figure of a report, and the bound it is held against. Torch-free."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """A bound that a measured figure is held against.

    Attributes:
        benchmark: whose reports have the figure.
        what: the figure in words, with its unit.
        figure: takes it from a report; None where it was not measured.
        bound: what is asked.
        at_most: whether the figure must not be above the bound; otherwise it must not be below.
        device: where it is asked; None is everywhere.
        note: a remark shown beside it; no figures belong here.
    """

    benchmark: str
    what: str
    figure: Callable[[Report], float | None]
    bound: float
    at_most: bool
    device: str | None = None
    note: str = ""

    def asked(self, report: Report) -> bool:
        """Return whether the goal is one for the report's device."""
        return self.device in (None, report.get("settings", {}).get("device"))

    def verdict(self, report: Report) -> str:
        """Return `met`, `missed` or `not measured`."""
        value = self.figure(report)
        if value is None:
            return "not measured"
        return "met" if (value <= self.bound if self.at_most else value >= self.bound) else "missed"


def median(report: Report, contestant: str, key: str) -> float | None:
    """Return the median of a contestant's figure; None where it did not run."""
    return report.get("contestants", {}).get(contestant, {}).get("medians", {}).get(key)


def quotient(first: tuple[str, str], second: tuple[str, str]) -> Callable[[Report], float | None]:
    """Return what divides the median of one (contestant, key) by that of another."""

    def figure(report: Report) -> float | None:
        a, b = median(report, *first), median(report, *second)
        return None if a is None or not b else a / b

    return figure


def hardest(
    above: str, below: str, key: str, at_most: bool = False, frozen: bool | None = None
) -> Callable[[Report], float | None]:
    """Return what divides one contestant's median by another's where the goal is hardest, over losses and heads.

    Args:
        above: contestant.
        below: contestant it is divided by.
        key: of the median.
        at_most: whether the goal is an upper bound.
        frozen: only frozen or only trained heads; None is both.
    """

    def figure(report: Report) -> float | None:
        lines = [line for line in report.get("lines", []) if frozen in (None, line["frozen_head"])]
        found = [quotient((above, key), (below, key))(line) for line in lines]
        if not found or None in found:
            return None
        return max(f for f in found if f is not None) if at_most else min(f for f in found if f is not None)

    return figure


_ALL = "at the loss where it is least"

GOALS = (
    Goal(
        "head",
        "trl's time to studykit's, trained or frozen head",
        hardest("trl", "studykit", "seconds"),
        3.0,
        at_most=False,
        device="cpu",
        note=_ALL,
    ),
    Goal(
        "head",
        "plain PyTorch's time to studykit's, trained or frozen head",
        hardest("plain", "studykit", "seconds"),
        1.0,
        at_most=False,
        device="cpu",
        note=_ALL,
    ),
    Goal(
        "head",
        "studykit's peak memory to plain PyTorch's",
        hardest("studykit", "plain", "gib", at_most=True),
        0.6,
        at_most=True,
        device="cpu",
        note="at the loss where it is most",
    ),
    Goal(
        "head",
        "trl's time to studykit's, trained head",
        hardest("trl", "studykit", "seconds", frozen=False),
        1.5,
        at_most=False,
        device="cuda",
        note=_ALL,
    ),
    Goal(
        "head",
        "trl's time to studykit's, frozen head",
        hardest("trl", "studykit", "seconds", frozen=True),
        1.6,
        at_most=False,
        device="cuda",
        note=_ALL,
    ),
    Goal(
        "head",
        "liger-kernel's time to studykit's",
        hardest("liger", "studykit", "seconds"),
        1.0,
        at_most=False,
        device="cuda",
        note=_ALL,
    ),
    Goal(
        "head",
        "studykit's peak memory to trl's",
        hardest("studykit", "trl", "gib", at_most=True),
        1.0,
        at_most=True,
        device="cuda",
        note="at the loss where it is most",
    ),
    Goal(
        "step",
        "a step of kd with a cached teacher against one of sft, ratio of seconds",
        quotient(("studykit kd, cached teacher", "seconds"), ("studykit sft", "seconds")),
        1.10,
        at_most=True,
    ),
    Goal(
        "step",
        "kd with a live teacher against trl's GKDTrainer, ratio of tokens per second",
        quotient(("studykit kd, live teacher", "tokens_per_s"), ("trl GKDTrainer", "tokens_per_s")),
        1.5,
        at_most=False,
        note="off-policy, forward KL on both sides, no padding; both run the same layers, so the more these weigh "
        "against the head (a vocabulary of few words, or all layers on a CPU), the less its gain shows. Next ideas: "
        "ragged sequences, which the kit groups by length, and one pass of a small teacher for several steps",
    ),
    Goal(
        "overheads",
        "`results.load` from the index, seconds",
        lambda report: median(report, "table", "seconds"),
        1.0,
        at_most=True,
        note="at the number of runs named below",
    ),
    Goal(
        "overheads",
        "`studykit --help`, seconds of the whole process",
        lambda report: median(report, "studykit --help", "seconds"),
        0.5,
        at_most=True,
    ),
)
