"""Do intervals and verdicts hold what they claim? Studies whose truth is known, drawn and judged many times.

    python -m benchmarks.simulation                       # 2,000 studies of each kind, some minutes
    python -m benchmarks.simulation --trials 150          # the short form, which the tests run

Scores are of two arms that share their seeds. *normal*: normal in each arm. *skewed*: gamma of shape 4 (skewness 1) in
each arm, those that are compared at half the baseline's scale, so that neither arm nor difference is normal; *very
skewed*: exponential (skewness 2) in the same way, reported and not claimed. *item-correlated*: right or wrong on 300
items; items differ in difficulty for all seeds and both arms, and in what an arm makes of them; the truth is that of
all items of the kind. *Seeds and items*, for power: normal, by seed, by item and by both, with spreads that are known.
Everything goes through the functions that the findings call. The shares go to results/benchmarks/simulation.json and
from there to docs/statistics.md.
"""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, stdtrit

from benchmarks.measurement import OUT
from studykit.findings import markdown_table
from studykit.statistics import Interval, crossover, mean_interval, paired_difference
from studykit.statistics.items import seeds_and_items
from studykit.statistics.verdicts import (
    LEVEL,
    POWER,
    detectable_effect,
    seeds_needed,
    spreads_of,
    verdict,
    verdicts,
)

SEEDS = (3, 5, 10)
KINDS = ("normal", "skewed", "very skewed", "item-correlated")
SHAPES = {"skewed": 4.0, "very skewed": 1.0}
"""Of the gamma distribution; its skewness is 2 / √shape."""

ITEMS = 300
BUDGETS = (500, 1_500, 5_000, 15_000, 40_000)
CURVES = {
    "steep": (6.0, 4.0, 1.0, -1.5, -3.0),
    "early": (0.8, -0.5, -2.0, -3.0, -3.0),
    "late": (5.0, 3.0, 2.0, 1.0, -0.6),
}
"""Mean differences at `BUDGETS`, each with one crossing."""

SPREADS = {"mostly seeds": (1.0, 3.0, 4.0), "both": (1.0, 6.0, 4.0), "mostly items": (0.3, 10.0, 4.0)}
"""Standard deviations by seed, by item and by both: on `ITEMS` items the items leave 0.17, 0.35 and 0.58."""

MANY_SEEDS = 60
"""With this number of seeds, what is left open is mostly the items' part."""


@dataclass(frozen=True)
class Check:
    """A share or ratio that was found, and the range that it must be in.

    Attributes:
        what: the claim.
        case: kind of scores, number of seeds and the like.
        value: found.
        low, high: the range.
        error: standard error of the value, by which it may leave the range twice.
        note: what else was counted.
        claimed: False where the value is only reported.
    """

    what: str
    case: str
    value: float
    low: float
    high: float
    error: float = 0.0
    note: str = ""
    claimed: bool = True

    @property
    def holds(self) -> bool:
        """Whether the value is in its range, up to two standard errors, or is only reported."""
        return not self.claimed or bool(self.low - 2 * self.error <= self.value <= self.high + 2 * self.error)


def simulate(trials: int, seed: int = 0) -> Iterator[Check]:
    """Yield every check.

    Args:
        trials: number of studies of each kind.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    for n in SEEDS:
        yield from (_coverage(kind, n, trials, rng) for kind in KINDS)
        yield from (_false_claims(kind, n, trials, rng) for kind in KINDS)
        yield from (_crossovers(name, n, trials, rng) for name in CURVES)
        yield _detectable(n, trials, rng)
    yield from (_needed(effect, trials, rng) for effect in (0.5, 1.0, 2.0))
    for n, name in itertools.product(SEEDS, SPREADS):
        yield from _detectable_over_items(name, n, trials, rng)
    yield from (_needed_over_items(name, trials, rng) for name in ("mostly seeds", "both"))
    yield from (_items_needed(name, trials, rng) for name in SPREADS)


def format_checks(report: dict[str, Any]) -> str:
    """Return the checks of a report as Markdown."""
    rows = [
        {
            "claim": check["what"],
            "of": check["case"],
            "found": f"{check['value']:.3f}",
            "range": f"{check['low']:g} to {check['high']:g}",
            "holds": ("yes" if check["holds"] else "no") if check["claimed"] else "not claimed",
            "note": check["note"],
        }
        for check in report["checks"]
    ]
    table = markdown_table(pd.DataFrame(rows), left=("claim", "of", "holds", "note"))
    about = f"{report['trials']:,} made-up studies of each kind, `python -m benchmarks.simulation`. "
    return f"{about}A share may leave its range by two standard errors of these trials.\n\n{table}"


def _null_differences(kind: str, n: int, rng: np.random.Generator, contrasts: int = 10) -> np.ndarray:
    """Return scores of several arms minus those of one baseline, all with equal means: [contrasts, n]."""
    if kind == "normal":
        arms = rng.normal(0, 1, (contrasts + 1, n))
    else:
        arms = (rng.gamma(SHAPES[kind], 1, (contrasts + 1, n)) - SHAPES[kind]) / math.sqrt(SHAPES[kind])
        arms[1:] /= 2
    arms = arms + rng.normal(0, 2, n)
    return arms[1:] - arms[0]


def _answers(n: int, rng: np.random.Generator, arms: int, gain: float = 0.0) -> np.ndarray:
    """Return 0 or 1 for each arm, seed and item; all arms but the first gain on the probit scale."""
    item, of_arm = rng.normal(0, 1, ITEMS), rng.normal(0, 0.4, (arms, 1, ITEMS))
    of_seed, rest = rng.normal(0, 0.1, (arms, n, 1)), rng.normal(0, 1, (arms, n, ITEMS))
    level = np.full((arms, 1, 1), gain)
    level[0] = 0.0
    return (level + item + of_arm + of_seed + rest > 0).astype(float)


def _coverage(kind: str, n: int, trials: int, rng: np.random.Generator) -> Check:
    covered = 0
    for _ in range(trials):
        if kind == "item-correlated":
            first, second = _answers(n, rng, 2, gain=0.3)
            truth = ndtr(0.3 / math.sqrt(1 + 1 + 0.4**2 + 0.1**2)) - 0.5
            found = seeds_and_items(second - first)
        else:
            truth, found = 1.0, _interval(_null_differences(kind, n, rng, 1)[0] + 1.0)
        covered += found is not None and _holds(found, truth)
    how = "seeds and items" if kind == "item-correlated" else "seeds"
    what, error = f"95% intervals over {how}", _error(0.95, trials)
    return Check(what, f"{kind}, n = {n}", covered / trials, 0.93, 0.97, error, "", kind != "very skewed")


def _interval(differences: np.ndarray) -> Interval:
    return paired_difference(differences.tolist(), [0.0] * len(differences))


def _false_claims(kind: str, n: int, trials: int, rng: np.random.Generator) -> Check:
    """Judge notebooks in which nothing differs: ten arms with one baseline."""
    claims = single = 0
    for _ in range(trials):
        if kind == "item-correlated":
            answers = _answers(n, rng, 11)
            intervals = [seeds_and_items(100 * (arm - answers[0])) for arm in answers[1:]]
        else:
            intervals = [mean_interval(row.tolist()) for row in _null_differences(kind, n, rng)]
        found = verdicts({str(i): one for i, one in enumerate(intervals) if one}, tie=0.01)
        claims += any(one.word in ("helps", "hurts") for one in found.values())
        single += any(one.difference.excludes_zero for one in found.values())
    note = f"clear of zero by themselves: {single / trials:.1%}"
    case = f"{kind}, n = {n}, 10 contrasts"
    what, share, error = "helps or hurts where nothing differs", claims / trials, _error(LEVEL, trials)
    return Check(what, case, share, 0.0, LEVEL, error, note, kind != "very skewed")


def _crossovers(name: str, n: int, trials: int, rng: np.random.Generator) -> Check:
    truth, logs = np.array(CURVES[name]), np.log(BUDGETS)
    last = int(np.flatnonzero(truth > 0)[-1])
    part = truth[last] / (truth[last] - truth[last + 1])
    planted = math.exp(logs[last] + part * (logs[last + 1] - logs[last]))
    covered = never = 0
    for _ in range(trials):
        rows = truth + rng.normal(0, 1, (n, 5)) + rng.normal(0, 0.5, (n, 1))
        found = crossover(BUDGETS, [dict(enumerate(column)) for column in rows.T])
        covered += found is not None and (found.low or 0) <= planted <= (found.high or math.inf)
        never += found is None or found.crossing < n
    note = f"some seeds never cross in {never / trials:.0%}"
    return Check("planted crossover", f"{name}, n = {n}", covered / trials, 0.93, 1.0, _error(0.95, trials), note)


def _detectable(n: int, trials: int, rng: np.random.Generator) -> Check:
    """Compare the minimum detectable effect with the one that is seen in 80% of the drawn studies."""
    noise, critical = rng.normal(0, 1, (20 * trials, n)), float(stdtrit(n - 1, 1 - LEVEL / 2))
    low, high = 0.0, 20.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if _power(noise + middle, critical) < POWER else (low, middle)
    ratio = detectable_effect(1.0, n) / high
    return Check("minimum detectable effect / simulated", f"n = {n}", ratio, 0.8, 1.2)


def _needed(effect: float, trials: int, rng: np.random.Generator) -> Check:
    """Compare the number of seeds needed with the fewest at which the effect is seen in 80% of the drawn studies."""
    n = 2
    while _power(rng.normal(effect, 1, (20 * trials, n)), float(stdtrit(n - 1, 1 - LEVEL / 2))) < POWER:
        n += 1
    claimed = seeds_needed(effect, 1.0)
    note = f"{claimed:.0f} claimed, {n} simulated"
    return Check(
        "seeds needed / simulated", f"effect of {effect:g} standard deviations", claimed / n, 0.8, 1.2, 0.0, note
    )


def _over_items(name: str, n: int, trials: int, rng: np.random.Generator) -> list[Interval]:
    """Return intervals over seeds and items of differences whose mean is 0."""
    of_seeds, of_items, rest = SPREADS[name]
    found = []
    for _ in range(trials):
        parts = rng.normal(0, of_seeds, (n, 1)) + rng.normal(0, of_items, ITEMS)
        found.append(seeds_and_items(parts + rng.normal(0, rest, (n, ITEMS))))
    return [one for one in found if one is not None]


def _parts(name: str) -> tuple[float, float]:
    """Return the true standard deviation over seeds on `ITEMS` items, and the standard error from these items."""
    of_seeds, of_items, rest = SPREADS[name]
    return math.sqrt(of_seeds**2 + rest**2 / ITEMS), of_items / math.sqrt(ITEMS)


def _least_effects(intervals: Sequence[Interval], level: float = LEVEL) -> np.ndarray:
    """Return by how much the mean of each study would have to be higher for its difference to be claimed."""
    n = intervals[0].n
    wider = stdtrit(n - 1, 1 - level / 2) / stdtrit(n - 1, 1 - LEVEL / 2)
    return np.array([wider * (one.mean - (one.low or 0.0)) - one.mean for one in intervals])


def _detectable_over_items(name: str, n: int, trials: int, rng: np.random.Generator) -> Iterator[Check]:
    """Compare the minimum detectable effect with the one that is seen in 80% of studies over seeds and items.

    At 5%, and at the level that Holm's correction would leave to each of five contrasts.
    """
    drawn, (spread, item_error) = _over_items(name, n, 4 * trials, rng), _parts(name)
    for level in (LEVEL, LEVEL / 5):
        found = float(np.quantile(_least_effects(drawn, level), POWER))
        ratio = detectable_effect(spread, n, level, item_error=item_error) / found
        own = [detectable_effect(s, n, level, item_error=e) / found for s, e in map(spreads_of, drawn[:trials])]
        low, median, high = np.quantile(own, (0.1, 0.5, 0.9))
        note = f"from a study's own spreads {median:.2f} (80% of studies: {low:.2f} to {high:.2f})"
        what, case = "minimum detectable effect over seeds and items / simulated", f"{name}, n = {n}, level {level:g}"
        yield Check(what, case, ratio, 0.8, 1.2, 0.0, note)


def _needed_over_items(name: str, trials: int, rng: np.random.Generator) -> Check:
    """Compare the seeds needed with the fewest at which an effect is seen in 80% of studies over seeds and items.

    The effect is that of twelve seeds, so that it is about the same number whatever the spreads. Where mostly items
    are left open, power hardly changes with the seeds, and no number of them can be made out.
    """
    spread, item_error = _parts(name)
    effect = detectable_effect(spread, 12, item_error=item_error)
    claimed, n = seeds_needed(effect, spread, item_error=item_error), 6
    while np.mean(_least_effects(_over_items(name, n, 4 * trials, rng)) < effect) < POWER:
        n += 1
    note = f"{claimed:.0f} claimed, {n} simulated"
    what = "seeds needed over seeds and items / simulated"
    return Check(what, f"{name}, effect of {effect:.2f}", claimed / n, 0.8, 1.2, 0.0, note)


def _items_needed(name: str, trials: int, rng: np.random.Generator) -> Check:
    """Count how often many seeds find an effect of two item errors, of which it is said that more items are needed."""
    effect = 2 * _parts(name)[1]
    least = _least_effects(_over_items(name, MANY_SEEDS, max(trials // 5, 50), rng))
    few = _over_items(name, 5, trials, rng)
    shifted = [replace(one, mean=effect, low=(one.low or 0.0) - one.mean + effect) for one in few]
    shifted = [replace(one, high=2 * effect - (one.low or 0.0)) for one in shifted]
    found = [verdict(one, tie=0.01) for one in shifted]
    said = [one.needs_items for one in found if one.word == "cannot tell"]
    note = f"with 5 seeds and this difference {np.mean(said):.0%} of those that cannot tell say so"
    what = f"power at {MANY_SEEDS} seeds where more test items are needed"
    return Check(what, f"{name}, effect of {effect:.2f}", float(np.mean(least < effect)), 0.0, POWER, 0.0, note)


def _power(draws: np.ndarray, critical: float) -> float:
    errors = draws.std(axis=1, ddof=1) / math.sqrt(draws.shape[1])
    return float((np.abs(draws.mean(axis=1)) > critical * errors).mean())


def _holds(interval: Interval, truth: float) -> bool:
    return interval.low is not None and interval.high is not None and interval.low <= truth <= interval.high


def _error(share: float, trials: int) -> float:
    return math.sqrt(share * (1 - share) / trials)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, print every check, write the report, and return 1 if one does not hold."""
    parser = argparse.ArgumentParser(description="Simulate studies and count what intervals and verdicts hold.")
    parser.add_argument("--trials", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=OUT / "simulation.json")
    given = parser.parse_args(arguments)
    checks = []
    for check in simulate(given.trials):
        checks.append(check)
        mark = ("ok " if check.holds else "NOT") if check.claimed else "(-)"
        print(
            f"{mark} {check.what}, {check.case}: {check.value:.3f} in [{check.low}, {check.high}] {check.note}",
            flush=True,
        )
    report = {"trials": given.trials, "checks": [asdict(check) | {"holds": check.holds} for check in checks]}
    given.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(check.holds for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
