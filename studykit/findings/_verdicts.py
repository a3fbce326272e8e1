"""Verdicts of findings: margins, units and directions come from the metric."""

from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import median

from studykit.scorers import metric
from studykit.statistics import Interval
from studykit.statistics.verdicts import WORDS, NoiseFloor, Verdict, corrections, verdict


def judge(differences: Mapping[str, Interval | None], score: str, tie: float | None = None) -> dict[str, Verdict]:
    """Return the verdicts on the planned contrasts of a finding by name, Holm's correction over all of them.

    Args:
        differences: by name of the contrast, arm - baseline in the unit in which the metric is shown; one that cannot
            be computed yet is None: it has no verdict, and counts among the planned ones.
        score: the metric.
        tie: largest difference that does not matter, in this unit; None: the metric's.

    >>> str(judge({"kd": Interval(0.2, -0.5, 0.9, 5)}, "exact_match")["kd"])
    'tie (no difference larger than 1.0 points)'
    """
    return judge_metrics({name: (score, difference) for name, difference in differences.items()}, {score: tie})


def judge_metrics(
    contrasts: Mapping[str, tuple[str, Interval | None]], ties: Mapping[str, float | None]
) -> dict[str, Verdict]:
    """Return the verdicts on planned contrasts in several metrics, Holm's correction over all of them.

    Args:
        contrasts: by name, the metric and the difference, None where it cannot be computed yet.
        ties: largest difference that does not matter by metric; the metric's, where it has none here.
    """
    corrected = corrections({name: difference for name, (_, difference) in contrasts.items()})
    found = {}
    for name, (score, difference) in contrasts.items():
        if difference is None:
            continue
        shown, tie = metric(score), ties.get(score)
        found[name] = verdict(
            difference,
            tie=shown.margin if tie is None else tie,
            higher_is_better=shown.higher_is_better,
            unit=shown.unit,
            digits=shown.digits,
            **corrected[name],
        )
    return found


def count_words(found: Iterable[Verdict]) -> str:
    """Return how many verdicts have each word, such as "3 help, 1 hurts, 2 cannot tell"; words of none are left out."""
    counts = Counter(one.word for one in found)
    forms = {"helps": ("helps", "help"), "hurts": ("hurts", "hurt"), "tie": ("ties", "tie")}
    return ", ".join(f"{n} {forms.get(word, (word, word))[n > 1]}" for word in WORDS if (n := counts[word]))


def cells_of(found: Verdict | None, prefix: str = "") -> dict[str, str]:
    """Return a table's cells on a contrast: the verdict's phrase, and the minimum detectable effect beside it.

    Args:
        found: None where there is nothing to judge.
        prefix: of the columns' names.

    >>> cells_of(Verdict("helps", Interval(5.0, 3.0, 7.0, 5), 1.0, detectable=2.71))
    {'verdict': 'helps', 'detectable': '2.7'}
    """
    shown = "" if found is None or found.detectable is None else f"{found.detectable:.{found.digits}f}"
    return {f"{prefix}verdict": "" if found is None else str(found), f"{prefix}detectable": shown}


def missed_sentence(found: Iterable[Verdict]) -> str:
    """Return below which difference contrasts miss it too often, with a space before it; empty unless most are open.

    The difference is the median of the minimum detectable effects of the undecided ones, in each unit.

    >>> missed_sentence([Verdict("cannot tell", Interval(5.0, -3.0, 13.0, 5), 1.0, detectable=12.7, unit="points")])
    ' Differences below about 13 points would often be missed (power below 80%).'
    """
    known = [one for one in found if one.detectable is not None]
    open_ = [one for one in known if one.word == "cannot tell"]
    if 2 * len(open_) <= len(known):
        return ""
    sizes = {unit: median(one.detectable or 0.0 for one in open_ if one.unit == unit) for unit in _units(open_)}
    listed = " or ".join(f"{float(f'{size:.2g}'):g} {unit}".strip() for unit, size in sizes.items())
    return f" Differences below about {listed} would often be missed (power below 80%)."


def _units(found: Iterable[Verdict]) -> list[str]:
    return list(dict.fromkeys(one.unit for one in found))


def noise_sentence(noise: NoiseFloor | None, baseline: str, where: str, score: str) -> str:
    """Return what another seed alone changes, with a space before it; empty for a single seed.

    >>> noise_sentence(NoiseFloor(1.0, 1.41, 0.5, 3), "sft", "at 500 examples", "exact_match")
    ' Noise floor: two seeds of sft differ by 1.4 points at 500 examples, their paired differences vary by 0.5 (sd).'
    """
    if noise is None:
        return ""
    shown = metric(score)
    paired = (
        "" if noise.difference is None else f", their paired differences vary by {noise.difference:.{shown.digits}f}"
    )
    rerun = f"{noise.rerun:.{shown.digits}f} {shown.unit}".strip()
    return f" Noise floor: two seeds of {baseline} differ by {rerun} {where}{paired} (sd)."
