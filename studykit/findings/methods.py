"""Which method is best at each data budget, against fine-tuning, and what does it cost?"""

from collections import Counter
from typing import Any

import pandas as pd

from studykit.findings import Finding, format_difference, labels
from studykit.statistics import mean_interval, paired_difference

_COST = ("student_tokens", "teacher_tokens", "generated_tokens", "scored_tokens", "train_s")


def methods(frame: pd.DataFrame, *, baseline: str = "sft", score: str = "exact_match", nll: str = "nll") -> Finding:
    """Return score, NLL and cost of every method by budget, best first, and its paired difference to the baseline.

    Only finished runs with one stage count. Runs of one method with different options are different methods, named by
    what differs. Methods are paired with the baseline on seeds; with one seed there is no interval.

    Args:
        frame: from `results.load`.
        baseline: the method to compare with.
        score: the metric in points of 100, higher is better.
        nll: the second metric, nats per token, lower is better.

    Raises:
        ValueError: the rows mix students, or hold a method, budget and seed twice.
    """
    done = frame[(frame["status"] == "done") & frame[score].notna()] if score in frame else frame.iloc[:0]
    if (names := sorted(done["student"].unique())) and len(names) > 1:
        raise ValueError(f"methods compares one student, the table holds {', '.join(names)}: keep one")
    if done.empty:
        return Finding(pd.DataFrame(), _sentence([], baseline), {"baseline": baseline, "score": score, "lines": []})
    done = done.assign(name=labels(done))
    if (twice := done.duplicated(["name", "budget_examples", "seed"])).any():
        shown = done[twice].iloc[0]
        raise ValueError(f"the table holds {shown['name']} at {shown['budget_examples']:,} examples twice: keep one")
    lines = []
    for budget in sorted(done["budget_examples"].dropna().unique()):
        part = done[done["budget_examples"] == budget]
        own = [_line(part[part["name"] == name], part[part["name"] == baseline], score, nll) for name in _names(part)]
        lines += sorted(own, key=lambda line: -line["score"]["mean"])
    numbers = {"baseline": baseline, "score": score, "lines": lines}
    return Finding(pd.DataFrame([_shown(line, baseline) for line in lines]), _sentence(lines, baseline), numbers)


def _names(part: pd.DataFrame) -> list[str]:
    return sorted(part["name"].unique())


def _line(own: pd.DataFrame, base: pd.DataFrame, score: str, nll: str) -> dict[str, Any]:
    line: dict[str, Any] = {
        "budget_examples": int(own["budget_examples"].iloc[0]),
        "method": str(own["name"].iloc[0]),
        "seeds": len(own),
    }
    for key, metric, scale in (("score", score, 100.0), ("nll", nll, 1.0)):
        if metric not in own or not own[metric].notna().all():
            continue
        values, other = ({int(s): v * scale for s, v in zip(f["seed"], f[metric], strict=True)} for f in (own, base))
        line[key] = vars(mean_interval(list(values.values())))
        if set(values) & set(other) and line["method"] != str(base["name"].iloc[0]):
            line[f"{key}_difference"] = vars(paired_difference(values, other))
    line["cost"] = {name: float(own[name].fillna(0).mean()) for name in _COST if name in own}
    return line


def _shown(line: dict[str, Any], baseline: str) -> dict[str, Any]:
    cost = line["cost"]
    read = cost.get("teacher_tokens", 0) + cost.get("scored_tokens", 0)
    return {
        "budget": line["budget_examples"],
        "method": line["method"],
        "seeds": line["seeds"],
        "score": round(line["score"]["mean"], 1),
        f"score - {baseline}": format_difference(line.get("score_difference"), 1),
        "NLL": round(line["nll"]["mean"], 3) if "nll" in line else None,
        f"NLL - {baseline}": format_difference(line.get("nll_difference"), 3),
        "generated": round(cost.get("generated_tokens", 0)),
        "teacher reads": round(read),
        "seconds": round(cost.get("train_s", 0)),
    }


def _sentence(lines: list[dict[str, Any]], baseline: str) -> str:
    parts = []
    for budget in dict.fromkeys(line["budget_examples"] for line in lines):
        compared = [x for x in lines if x["budget_examples"] == budget and "score_difference" in x]
        if not compared:
            continue
        best = compared[0]
        bounded = [x["score_difference"] for x in compared if x["score_difference"]["n"] > 1]
        above, below = sum(d["low"] > 0 for d in bounded), sum(d["high"] < 0 for d in bounded)
        seeds = best["score_difference"]["n"]
        ahead = best["score_difference"]["mean"] >= 0
        text = f"at {budget:,} examples " + (
            f"{best['method']} is best, "
            if ahead
            else f"no method is above {baseline}: {best['method']} comes nearest, "
        )
        text += (
            f"{format_difference(best['score_difference'], 1)} points from {baseline} "
            f"(n = {seeds} seed{'s' if seeds > 1 else ''})"
        )
        if bounded:
            text += f"; of {len(bounded)} methods {above} are above {baseline} and {below} below, clear of zero"
        parts.append(text)
    if not parts:
        return f"No budget has both {baseline} and another method finished yet."
    text = ". ".join(part[0].upper() + part[1:] for part in parts) + "."
    many = max(Counter(line["budget_examples"] for line in lines if "score_difference" in line).values())
    if many > 5:
        text += f" With {many} comparisons at 95%, about {many / 20:.0f} would be clear of zero by chance alone."
    return text
