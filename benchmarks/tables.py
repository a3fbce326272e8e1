"""What was measured of speed and memory, as verdicts and tables of docs/benchmarks.md. Torch-free.

The scripts of benchmarks/ leave one JSON report per benchmark, shape and device in results/benchmarks. Goals are
in `goals`; whether one is met is decided by the reports alone.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.goals import GOALS, Report, median, quotient
from studykit.findings import markdown_table


def read_reports(folder: Path, link: str) -> dict[str, list[Report]]:
    """Return the reports of a folder by benchmark, each with its `file`; a folder that is not there has none.

    Args:
        folder: results/benchmarks.
        link: the same as seen from the page, kept as `link` of every report.
    """
    found: dict[str, list[Report]] = {}
    for file in sorted(folder.glob("*.json")):
        report = json.loads(file.read_text(encoding="utf-8")) | {"file": file.name, "link": link}
        found.setdefault(file.stem.partition("-")[0], []).append(report)
    return found


def as_markdown(reports: dict[str, list[Report]]) -> str:
    """Return the goals with their verdicts, then one section per benchmark."""
    parts = ["## Goals", markdown_table(_goals(reports), left=("goal", "on", "verdict", "note"))]
    for benchmark, (title, tables) in SECTIONS.items():
        parts.append(f"## {title}")
        parts += [] if reports.get(benchmark) else ["Not measured yet."]
        for report in reports.get(benchmark, []):
            parts += [f"### {_place(report)}", _provenance(report), *tables(report)]
    return "\n\n".join(parts)


def _goals(reports: dict[str, list[Report]]) -> pd.DataFrame:
    rows = []
    for goal in GOALS:
        asked = f"{'at most' if goal.at_most else 'at least'} {goal.bound:g}"
        for report in [r for r in reports.get(goal.benchmark, []) if goal.asked(r)] or [{}]:
            value = goal.figure(report)
            on, shown = _place(report) if report else goal.device or "-", "-" if value is None else f"{value:.4g}"
            rows.append((goal.what, on, asked, shown, goal.verdict(report), goal.note))
    return pd.DataFrame(rows, columns=["goal", "on", "asked", "measured", "verdict", "note"])


def _place(report: Report) -> str:
    """Return what tells a report from others of its benchmark: shape and device."""
    return report["file"].removesuffix(".json").partition("-")[2].replace("-", ", ")


def _provenance(report: Report) -> str:
    """Say in one line on what machine, with which versions and settings."""
    machine = report["machine"]
    sizes = f"{machine['cores']} cores, {machine['memory_gib']} GiB"
    names = [machine["gpu"], machine["cpu"], sizes, " ".join(machine["instructions"])]
    versions = [f"{name} {version}" for name, version in report["versions"].items()]
    chosen = [f"{name} {_words(value)}" for name, value in report["settings"].items() if value is not None]
    parts = [
        f"[`{report['file']}`]({report['link']}/{report['file']})",
        f"{', '.join(str(name) for name in names if name)}, threads {report['threads']}",
        ", ".join(versions),
    ]
    if report["peers"] != report["versions"]:
        parts.append("peers: " + ", ".join(f"{name} {version}" for name, version in report["peers"].items()))
    return "; ".join([*parts, ", ".join(chosen)]) + "."


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _number(value: float | None) -> str:
    """Return three digits of a figure, with separators where it is large; `-` where it is missing.

    >>> _number(1234.5), _number(0.012345), _number(None)
    ('1,234', '0.0123', '-')
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _contestants(columns: dict[str, str], to: tuple[str, str, str] | None = None) -> Callable[[Report], list[str]]:
    """Return what makes a table of contestants.

    Args:
        columns: key of a median to its title.
        to: title, contestant and key of a last column: every contestant's median of that key to that contestant's.
    """
    titles = ["contestant", "repeats", *columns.values(), *(to[:1] if to else ())]

    def tables(report: Report) -> list[str]:
        rows = []
        for name, found in report["contestants"].items():
            if "failed" in found:
                row = [name, f"not run: {found['failed']}"]
            else:
                row = [name, str(found["repeats"]), *(_number(found["medians"].get(key)) for key in columns)]
                row += [_number(quotient((name, to[2]), to[1:])(report))] if to else []
            rows.append(row + [""] * (len(titles) - len(row)))
        return [markdown_table(pd.DataFrame(rows, columns=titles), left=titles[:1])]

    return tables


def _step(report: Report) -> list[str]:
    columns = {
        "seconds": "seconds per step",
        "tokens_per_s": "tokens per second",
        "gib": "peak GiB",
        "loss": "loss",
        "share_of_peak": "share of matrix peak",
    }
    tables = _contestants(columns, ("seconds to sft's", "studykit sft", "seconds"))(report)
    peak = report.get("peak_flops_per_s")
    return [*tables, f"Matrix peak: {_number(peak and peak / 1e12)} TFLOP/s."]


def _head(report: Report) -> list[str]:
    rows = []
    for line in report["lines"]:
        where = [line["loss"], "frozen" if line["frozen_head"] else "trained"]
        for name, found in line["contestants"].items():
            if "failed" in found:
                rows.append([*where, name, f"not run: {found['failed']}", *[""] * 4])
                continue
            cells = []
            for key in ("seconds", "gib"):
                cells += [_number(median(line, name, key))]
                cells += [_number(quotient((name, key), ("studykit", key))(line))]
            rows.append([*where, name, *cells, _number(median(line, name, "loss"))])
    titles = ["loss", "head", "contestant", "seconds", "to studykit's", "peak GiB", "to studykit's peak", "value"]
    return [markdown_table(pd.DataFrame(rows, columns=titles), left=titles[:3])]


def _cost(report: Report) -> list[str]:
    units = {"seconds": ("ms", 1e3), "gib": ("MiB", 2.0**10)}
    rows = []
    for line in report["fits"]:
        unit, scale = units[line["figure"]]
        constants = [scale * line["at_zero"], 1e3 * scale * line["slope"], line["r2"]]
        rows.append([line["signal"], line["axis"], unit, *map(_number, constants)])
    titles = ["signal", "axis", "unit", "at zero", "per thousand", "R²"]
    return [
        f"![Seconds and peak memory of the head against tokens, vocabulary and k]({report['link']}/{_figure(report)})",
        markdown_table(pd.DataFrame(rows, columns=titles), left=titles[:3]),
    ]


def _figure(report: Report) -> str:
    return report["file"].replace(".json", ".svg")


def draw(reports: dict[str, list[Report]], folder: Path) -> None:
    """Draw the figures that the page shows."""
    from studykit.figures.head_cost import head_cost

    for report in reports.get("cost", []):
        head_cost(report["points"]).write_image(folder / _figure(report), width=860, height=620)


_STUDY = {
    "seconds": "wall seconds",
    "teacher_tokens": "tokens through the teacher",
    "train_s": "seconds of training, all kd runs",
    "exact_match": "exact match (points)",
    "nll": "NLL",
}
_OVERHEADS = {"seconds": "seconds", "runs": "runs", "positions_per_s": "positions per second", "prepare_s": "prepare"}

SECTIONS: dict[str, tuple[str, Callable[[Report], Iterable[str]]]] = {
    "step": ("A training step", _step),
    "head": ("The loss from hidden states", _head),
    "cost": ("What the head costs", _cost),
    "study": (
        "A study with one cached teacher",
        _contestants(_STUDY, ("teacher tokens to the live teacher's", "live teacher", "teacher_tokens")),
    ),
    "overheads": ("Overheads", _contestants(_OVERHEADS)),
}
"""Benchmark to its title and what makes its tables."""
