"""The answer of `data_size` in words: the verdicts at the budgets, and where the advantage ends."""

from collections.abc import Sequence

from studykit.findings import format_interval
from studykit.findings._lines import Line
from studykit.scorers import Metric
from studykit.statistics import Crossover
from studykit.statistics.verdicts import Verdict

Judged = Sequence[tuple[Line, Verdict]]


def describe(judged: Judged, end: Crossover | None, arm: str, score: Metric) -> str:
    """Return the verdicts at the smallest and largest budget with their intervals, those between, and the end.

    Args:
        judged: at least one budget, increasing.
        end: of the advantage.
        arm: that is compared with the baseline.
        score: the metric of the verdicts.
    """
    ends = (judged[0], judged[-1]) if len(judged) > 1 else (judged[0],)
    text = "; ".join(_at_budget(line, found, score) for line, found in ends) + "." + _between(judged[1:-1])
    return f"{text} {_where_it_ends(judged, end, arm.upper(), score)}" if len(judged) > 1 else text


def _at_budget(line: Line, found: Verdict, score: Metric) -> str:
    seeds = f"n = {found.difference.n} seed{'s' if found.difference.n > 1 else ''}"
    shown = format_interval(found.difference, score.digits, sign=True)
    return f"{found} at {line.budget:,} examples ({shown} {score.unit}, {seeds})"


def _between(judged: Judged) -> str:
    """Return the verdicts at the budgets between, those of one phrase together."""
    budgets: dict[str, list[str]] = {}
    for line, found in judged:
        budgets.setdefault(str(found), []).append(f"{line.budget:,}")
    parts = [f"{phrase} at {_joined(part)}" for phrase, part in budgets.items()]
    return f" Between them: {'; '.join(parts)}." if parts else ""


def _joined(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _where_it_ends(judged: Judged, end: Crossover | None, arm: str, score: Metric) -> str:
    sign = 1 if score.higher_is_better else -1
    gains = [sign * found.difference.mean for _, found in judged]
    better, worse = ("above", "below") if score.higher_is_better else ("below", "above")
    if all(gain <= 0 for gain in gains):
        return f"{arm} has no advantage at any of these budgets."
    if end is None and all(gain > 0 for gain in gains):
        return f"The mean difference is {better} zero at every budget: no end of the advantage within these budgets."
    if end is None:
        return f"The difference changes sign, but never from {better} to {worse} zero: no end of an advantage."
    if not any(found.word == "helps" for _, found in judged):
        return "No budget has an advantage that is sure, so none can be said to end."
    low, high = (None if bound is None else _round(bound) for bound in (end.low, end.high))
    if end.budget is None:
        return f"The mean difference does not fall to zero; the advantage may end {_range(low, high)} (95%)."
    bounds = f" [{low or 'smaller'}, {high or 'larger'}]" if end.n > 1 else ""
    return (
        f"Its advantage ends near {_round(end.budget)}{bounds} examples ({end.crossing} of {end.n} seeds cross zero)."
    )


def _range(low: str | None, high: str | None) -> str:
    if low and high:
        return f"between {low} and {high} examples"
    if low:
        return f"from {low} examples on"
    return f"at up to {high} examples" if high else "at any of these budgets, or beyond"


def _round(budget: float) -> str:
    """Return a budget with three significant digits."""
    return f"{float(f'{budget:.3g}'):,.0f}"
