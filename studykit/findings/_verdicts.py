"""Verdicts of findings: margins, units and directions come from the metric."""

from collections.abc import Mapping

from studykit.scorers import metric
from studykit.statistics import Interval
from studykit.statistics.verdicts import Verdict, verdicts


def judge(differences: Mapping[str, Interval], score: str, tie: float | None = None) -> dict[str, Verdict]:
    """Return the verdicts on the planned contrasts of a finding by name, Holm's correction over all of them.

    Args:
        differences: by name of the contrast, arm - baseline in the unit in which the metric is shown.
        score: the metric.
        tie: largest difference that does not matter, in this unit; None: the metric's.

    >>> str(judge({"kd": Interval(0.2, -0.5, 0.9, 5)}, "exact_match")["kd"])
    'tie (no difference larger than 1.0 points)'
    """
    shown = metric(score)
    return verdicts(
        differences,
        tie=shown.margin if tie is None else tie,
        higher_is_better=shown.higher_is_better,
        unit=shown.unit,
        digits=shown.digits,
    )
