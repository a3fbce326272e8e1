"""Does distillation beat fine-tuning at each data budget, and where does its advantage end?"""

from typing import Any

import pandas as pd

from studykit.findings import Finding, format_interval
from studykit.statistics import crossover, mean_interval, paired_difference


def data_size(
    frame: pd.DataFrame,
    *,
    baseline: str = "sft",
    arm: str = "kd",
    score: str = "exact_match",
    nll: str = "nll",
    teacher: str | None = None,
    student: str | None = None,
) -> Finding:
    """Return score and NLL by budget for both arms, and the paired difference arm - baseline with 95% t interval.

    Only finished runs with one stage count. Arms are paired on seeds; a budget with one seed has no interval.

    Args:
        frame: from `results.load`.
        baseline, arm: methods to compare.
        score: the metric in points of 100, higher is better.
        nll: the second metric, nats per token, lower is better.
        teacher, student: names to keep; None keeps all, and more than one is refused.

    Raises:
        ValueError: the rows mix students or teachers, or runs of one method with different options, so that no pair is
            comparable.
    """
    done = frame[(frame["status"] == "done") & frame["method"].isin([baseline, arm])]
    done = done if student is None else done[done["student"] == student]
    keeps = done["teacher"].isna() | (done["teacher"] == teacher)
    done = done if teacher is None else done[keeps]
    for column in ("student", "teacher"):
        if (names := sorted(done[column].dropna().unique())) and len(names) > 1:
            raise ValueError(f"data_size compares one {column}, the table holds {', '.join(names)}: name one")
    if (twice := done.duplicated(["method", "budget_examples", "seed"])).any():
        shown = done[twice].iloc[0]
        raise ValueError(
            f"the table holds several runs of {shown['method']} at {shown['budget_examples']:,} examples, seed "
            f"{shown['seed']}: their options differ, keep one of each"
        )
    rows = [
        line
        for budget in sorted(done["budget_examples"].dropna().unique())
        if (line := _budget(done[done["budget_examples"] == budget], int(budget), baseline, arm, score, nll))
    ]
    end = _where_it_ends(rows)
    own = _teacher_score(done, score)
    table = pd.DataFrame([_shown(line, baseline, arm) for line in rows])
    numbers = {
        "baseline": baseline,
        "arm": arm,
        "score": score,
        "budgets": [_without_seeds(line) for line in rows],
        "advantage_ends": None if end is None else vars(end),
        "teacher_score": own,
    }
    sentence = _sentence(rows, end, baseline, arm)
    if own is not None and rows:
        sentence += f" The teacher itself scores {own:.1f}."
    return Finding(table, sentence, numbers)


def _budget(part: pd.DataFrame, budget: int, baseline: str, arm: str, score: str, nll: str) -> dict[str, Any] | None:
    """Return one budget's intervals; None until both arms have a seed in common."""
    line: dict[str, Any] = {"budget_examples": budget}
    for metric, scale in ((score, 100.0), (nll, 1.0)):
        if metric not in part:
            continue
        values = {
            method: (part[part["method"] == method].dropna(subset=[metric]).set_index("seed")[metric] * scale).to_dict()
            for method in (baseline, arm)
        }
        seeds = sorted(set(values[baseline]) & set(values[arm]))
        if not seeds:
            continue
        paired = [{int(seed): values[method][seed] for seed in seeds} for method in (arm, baseline)]
        line[metric] = {
            baseline: vars(mean_interval(list(paired[1].values()))),
            arm: vars(mean_interval(list(paired[0].values()))),
            "difference": vars(paired_difference(paired[0], paired[1])),
            "by_seed": {seed: paired[0][seed] - paired[1][seed] for seed in paired[0]},
        }
    if score not in line:
        return None
    line["score"] = line.pop(score)
    if nll in line:
        line["nll"] = line.pop(nll)
    return line


def _teacher_score(done: pd.DataFrame, score: str) -> float | None:
    column = f"teacher_{score}"
    known = done[column].dropna() if column in done else done["status"].iloc[:0]
    return 100.0 * float(known.mean()) if len(known) else None


def _where_it_ends(rows: list[dict[str, Any]]) -> Any:
    if len(rows) < 2:
        return None
    return crossover([r["budget_examples"] for r in rows], [r["score"]["by_seed"] for r in rows])


def _shown(line: dict[str, Any], baseline: str, arm: str) -> dict[str, Any]:
    """Return one line of the table as people read it."""
    points, shown = line["score"], {"budget": line["budget_examples"], "seeds": line["score"]["difference"]["n"]}
    for method in (baseline, arm):
        shown[method] = round(points[method]["mean"], 1)
    shown[f"{arm} - {baseline}"] = _interval(points["difference"], 1)
    if "nll" in line:
        for method in (baseline, arm):
            shown[f"{method} NLL"] = round(line["nll"][method]["mean"], 3)
        shown[f"NLL {arm} - {baseline}"] = _interval(line["nll"]["difference"], 3)
    return shown


def _interval(interval: dict[str, Any], digits: int) -> str:
    return format_interval(interval["mean"], interval["low"], interval["high"], digits, sign=True)


def _sentence(rows: list[dict[str, Any]], end: Any, baseline: str, arm: str) -> str:
    if not rows:
        return f"No budget has both {baseline} and {arm} finished yet."
    arm, baseline = arm.upper(), baseline.upper()
    parts = []
    for line in (rows[0], rows[-1]) if len(rows) > 1 else (rows[0],):
        difference = line["score"]["difference"]
        verdict = (
            ""
            if difference["n"] < 2
            else (", clear of zero" if difference["low"] > 0 or difference["high"] < 0 else ", not clear of zero")
        )
        seeds = f"n = {difference['n']} seed{'s' if difference['n'] > 1 else ''}"
        parts.append(f"{_interval(difference, 1)} points at {line['budget_examples']:,} examples ({seeds}{verdict})")
    text = f"{arm} - {baseline}: {'; '.join(parts)}."
    if len(rows) < 2:
        return text
    if end is not None:
        if not any((line["score"]["difference"]["low"] or 0) > 0 for line in rows):
            return f"{text} No budget has an advantage clear of zero, so none can be said to end."
        bounds = "" if end.low is None else f" [{end.low:,.0f}, {end.high:,.0f}]"
        seeds = len(set.intersection(*(set(line["score"]["by_seed"]) for line in rows)))
        return f"{text} Its advantage ends near {end.mean:,.0f}{bounds} examples ({end.n} of {seeds} seeds cross zero)."
    if all(line["score"]["difference"]["mean"] > 0 for line in rows):
        return (
            f"{text} The mean difference is above zero at every budget: no end of the advantage within these budgets."
        )
    if all(line["score"]["difference"]["mean"] <= 0 for line in rows):
        return f"{text} {arm} has no advantage at any of these budgets."
    return f"{text} The difference changes sign without falling from above zero: no end of an advantage can be named."


def _without_seeds(line: dict[str, Any]) -> dict[str, Any]:
    """JSON wants text keys; the seeds' own differences stay, under their number as text."""
    out: dict[str, Any] = {"budget_examples": line["budget_examples"]}
    for metric in ("score", "nll"):
        if metric in line:
            out[metric] = {k: v for k, v in line[metric].items() if k != "by_seed"}
            out[metric]["by_seed"] = {str(seed): value for seed, value in line[metric]["by_seed"].items()}
    return out
