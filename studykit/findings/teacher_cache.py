"""How much of a teacher must be kept for distillation to lose nothing, in bytes per response token?"""

from typing import Any

import pandas as pd

from studykit.findings import Finding, format_difference
from studykit.statistics import mean_interval, paired_difference

DENSE = "dense"
_MEASURED = {"bytes": "bytes_per_position", "kept_mass": "kept_mass", "cosine": "gradient_cosine"}


def teacher_cache(
    frame: pd.DataFrame,
    *,
    baseline: str = "sft",
    arm: str = "kd",
    score: str = "exact_match",
    nll: str = "nll",
) -> Finding:
    """Return size, quality and cost of every signal by budget, and its paired difference to the dense live teacher.

    A signal is what a student hears of its teacher: nothing (the baseline), the live teacher's whole distribution
    (dense), its k likeliest tokens, or samples. Only finished runs with one stage count; pairs share a seed.

    Args:
        frame: from `results.load`; what was kept is there where `study.measure_signals` has measured it.
        baseline: the method without a teacher.
        arm: the method that hears all the other signals.
        score: the metric in points of 100, higher is better.
        nll: the second metric, nats per token, lower is better.

    Raises:
        ValueError: the rows mix students, or hold a signal, budget and seed twice.
    """
    done = frame[(frame["status"] == "done") & frame["method"].isin([baseline, arm])]
    done = done[done[score].notna()] if score in done else done.iloc[:0]
    if done.empty:
        return Finding(pd.DataFrame(), _sentence([], baseline), {"baseline": baseline, "score": score, "lines": []})
    if (names := sorted(done["student"].unique())) and len(names) > 1:
        raise ValueError(f"teacher_cache compares one student, the table holds {', '.join(names)}: keep one")
    heard = [
        baseline if m == baseline else _signal(str(o)) for m, o in zip(done["method"], done["options"], strict=True)
    ]
    done = done.assign(signal=pd.Series(heard, index=done.index, dtype=object))
    if (twice := done.duplicated(["signal", "budget_examples", "seed"])).any():
        shown = done[twice].iloc[0]
        raise ValueError(f"the table holds {shown['signal']} at {shown['budget_examples']:,} examples twice: keep one")
    lines = []
    for budget in sorted(done["budget_examples"].dropna().unique()):
        part = done[done["budget_examples"] == budget]
        dense = part[part["signal"] == DENSE]
        own = [_line(part[part["signal"] == name], dense, baseline, score, nll) for name in part["signal"].unique()]
        lines += sorted(own, key=lambda line: _rank(line, baseline))
    numbers = {"baseline": baseline, "score": score, "lines": lines}
    return Finding(pd.DataFrame([_shown(line) for line in lines]), _sentence(lines, baseline), numbers)


def _signal(options: str) -> str:
    """Return what a run's options say of its teacher.

    >>> _signal("lr=0.004, source=lexicon, teacher_top_k=8"), _signal("lr=0.004")
    ('top_k=8', 'dense')
    """
    kept = [part.removeprefix("teacher_") for part in options.split(", ") if part.startswith("teacher_")]
    return next((part for part in kept if part.startswith(("top_k=", "samples="))), DENSE)


def _rank(line: dict[str, Any], baseline: str) -> tuple[int, float, str]:
    first = {baseline: 0, DENSE: 1}.get(line["signal"], 2)
    return first, float("inf") if line["bytes"] is None else line["bytes"], line["signal"]


def _line(own: pd.DataFrame, dense: pd.DataFrame, baseline: str, score: str, nll: str) -> dict[str, Any]:
    signal = str(own["signal"].iloc[0])
    line: dict[str, Any] = {
        "budget_examples": int(own["budget_examples"].iloc[0]),
        "signal": signal,
        "seeds": len(own),
        **{name: _mean(own, column) for name, column in _MEASURED.items()},
        "teacher_tokens": _mean(own, "teacher_tokens" if signal == DENSE else "cache_tokens"),
    }
    if signal == baseline:
        line["teacher_tokens"] = 0.0
    for key, metric, scale in (("score", score, 100.0), ("nll", nll, 1.0)):
        if metric not in own or not own[metric].notna().all():
            continue
        values, other = ({int(s): v * scale for s, v in zip(f["seed"], f[metric], strict=True)} for f in (own, dense))
        line[key] = vars(mean_interval(list(values.values())))
        if signal != DENSE and set(values) & set(other):
            line[f"{key}_difference"] = vars(paired_difference(values, other))
    return line


def _mean(own: pd.DataFrame, column: str) -> float | None:
    known = own[column].dropna() if column in own else own["seed"].iloc[:0]
    return float(known.mean()) if len(known) else None


def _shown(line: dict[str, Any]) -> dict[str, Any]:
    """Return one line of the table as people read it."""
    return {
        "budget": line["budget_examples"],
        "signal": line["signal"],
        "seeds": line["seeds"],
        "bytes": _text(line["bytes"], ".1f"),
        "kept mass": _text(line["kept_mass"], ".4f"),
        "cosine": _text(line["cosine"], ".4f"),
        "score": round(line["score"]["mean"], 1),
        "score - dense": format_difference(line.get("score_difference"), 1),
        "NLL": _text(line["nll"]["mean"], ".3f") if "nll" in line else "",
        "NLL - dense": format_difference(line.get("nll_difference"), 4),
        "teacher reads": _text(line["teacher_tokens"], ",.0f"),
    }


def _text(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _sentence(lines: list[dict[str, Any]], baseline: str) -> str:
    parts = []
    for budget in dict.fromkeys(line["budget_examples"] for line in lines):
        part = [line for line in lines if line["budget_examples"] == budget and "score_difference" in line]
        kept = [line for line in part if line["bytes"] is not None and "nll_difference" in line]
        if kept:
            without = next((line for line in part if line["signal"] == baseline), None)
            parts.append(f"At {budget:,} examples {_smallest(kept)}{_without(without)}")
    if not parts:
        return f"No budget has both {DENSE} and a signal of known size finished yet."
    return " ".join(parts)


def _smallest(kept: list[dict[str, Any]]) -> str:
    """Name the smallest signal whose intervals contain zero, and what these intervals could not have shown."""
    bounded = [line for line in kept if all(end["low"] is not None for end in _differences(line))]
    if not bounded:
        return f"one seed gives no interval: no signal can be said to do as well as the {DENSE} teacher, or worse."
    alike = [all(end["low"] <= 0 <= end["high"] for end in _differences(line)) for line in bounded]
    if not any(alike):
        return f"every one of {len(bounded)} signals differs from the {DENSE} teacher in score or NLL, clear of zero."
    first = alike.index(True)
    line, later = bounded[first], alike[first + 1 :]
    points, nats = ((end["high"] - end["low"]) / 2 for end in _differences(line))
    text = (
        f"the smallest signal without a clear difference to the {DENSE} teacher is {line['signal']}, "
        f"{line['bytes']:.1f} bytes a response token: {format_difference(line['score_difference'], 1)} points, "
        f"{format_difference(line['nll_difference'], 4)} nats (n = {line['score_difference']['n']} seeds). A "
        f"difference within {points:.1f} points or {nats:.4f} nats, the intervals' half widths, would not have been "
        "seen."
    )
    if later and not all(later):
        text += f" Of {len(later)} larger signals {later.count(False)} differ, clear of zero."
    return text


def _differences(line: dict[str, Any]) -> list[dict[str, Any]]:
    return [line["score_difference"], line["nll_difference"]]


def _without(line: dict[str, Any] | None) -> str:
    if line is None:
        return ""
    nats = f", {format_difference(line['nll_difference'], 4)} nats" if "nll_difference" in line else ""
    return f" No teacher at all: {format_difference(line['score_difference'], 1)} points{nats}."
