"""Contrasts in words: how large, how sure, and with which verdict."""

from collections.abc import Mapping, Sequence

from studykit.findings import format_interval
from studykit.findings._contrasts import Contrast
from studykit.findings._verdicts import count_words
from studykit.statistics.verdicts import Verdict


def describe(verdict: Verdict) -> str:
    """Return "+3.6 [+2.5, +4.6] points, n = 5 seeds: helps".

    >>> from studykit.statistics import Interval
    >>> describe(Verdict("cannot tell", Interval(2.0, None, None, 1), 1.0, unit="points"))
    '+2.0 points, n = 1 seed: cannot tell (one seed gives no interval)'
    """
    difference = verdict.difference
    shown = f"{format_interval(difference, verdict.digits, sign=True)} {verdict.unit}".strip()
    return f"{shown}, n = {difference.n} seed{'s' if difference.n > 1 else ''}: {verdict}"


def best_of(rows: Sequence[Contrast], verdicts: Mapping[str, Verdict], baseline: str) -> str:
    """Return which setting is best, how far from the baseline, and how many help or hurt; empty without pairs.

    Args:
        rows: of one budget and one combination of factors.
        verdicts: of the rows, by their keys.
        baseline: what the rows are contrasts to.
    """
    known = [row for row in rows if row.gain is not None]
    if not known:
        return ""
    best = min(known, key=lambda row: row.rank)
    ahead = "is best, " if best.sign * verdicts[best.key].difference.mean > 0 else f"comes nearest to {baseline}, "
    where = f"{best.budget_and_factors}," if best.factors else best.budget_and_factors
    text = f"At {where} {best.line.name} {ahead}{describe(verdicts[best.key])}."
    found = [verdicts[row.key] for row in known]
    if len(found) < 2 or all(one.difference.n < 2 for one in found):
        return text
    return f"{text} Against {baseline}, of {len(found)}: {count_words(found)}."
