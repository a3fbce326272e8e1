"""Goals are judged by the reports alone, and the page shows the verdicts."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cost_figure import draw_cost
from benchmarks.tables import GOALS, draw_figures, format_page, read_reports
from tools.pages import PAGES, ROOT

FIGURES = {  # of a report that meets every goal, by contestant
    "step": {
        "studykit sft": {"seconds": 1.0, "tokens_per_s": 100.0},
        "studykit kd, cached teacher": {"seconds": 1.1, "tokens_per_s": 90.0},
        "studykit kd, live teacher": {"seconds": 2.0, "tokens_per_s": 60.0},
        "trl GKDTrainer": {"seconds": 3.0, "tokens_per_s": 40.0},
    },
    "overheads": {
        "table": {"seconds": 1.0},
        "studykit --help": {"seconds": 0.5},
        "notebook, imports": {"seconds": 5.0},
    },
    "notebooks": {"slowest": {"seconds": 90.0}},
    "workers": {
        "papermill alone": {"seconds_per_cell": 1.0},
        "work": {"seconds_per_cell": 3.0},
        "two workers": {"seconds": 11.0},
        "batch --jobs 2": {"seconds": 10.0},
    },
    "pools": {"first step": {"seconds": 60.0, "gib": 2.0}},
    "shared_folder": {"all settings": {"most_operations_to_take": 10, "not_once": 0}},
}
HEADS = {  # of two reports of the head that meet every goal: device, frozen head, contestant
    "cpu": {
        frozen: {
            "plain": {"seconds": 1.0, "gib": 1.0},
            "trl": {"seconds": 3.0, "gib": 2.0},
            "studykit": {"seconds": 1.0, "gib": 0.6},
        }
        for frozen in (False, True)
    },
    "cuda": {
        frozen: {
            "trl": {"seconds": 1.6 if frozen else 1.5, "gib": 1.0},
            "liger": {"seconds": 1.0},
            "studykit": {"seconds": 1.0, "gib": 1.0},
        }
        for frozen in (False, True)
    },
}
WORSE_HEADS = [  # device, frozen head, contestant, key, the figure that misses it, and the goal that is missed
    ("cpu", True, "trl", "seconds", 2.99, "trl's time to studykit's, trained or frozen head"),
    ("cpu", False, "plain", "seconds", 0.99, "plain PyTorch's time"),
    ("cpu", False, "studykit", "gib", 0.61, "studykit's peak memory to plain"),
    ("cuda", False, "trl", "seconds", 1.49, "trl's time to studykit's, trained head"),
    ("cuda", True, "trl", "seconds", 1.59, "trl's time to studykit's, frozen head"),
    ("cuda", True, "liger", "seconds", 0.99, "liger"),
    ("cuda", False, "studykit", "gib", 1.01, "studykit's peak memory to trl's"),
]
WORSE = {  # goal by goal: benchmark, contestant, key and the figure that misses it
    "a step of kd with a cached": ("step", "studykit kd, cached teacher", "seconds", 1.101),
    "kd with a live teacher": ("step", "studykit kd, live teacher", "tokens_per_s", 59.9),
    "`results.load`": ("overheads", "table", "seconds", 1.001),
    "`studykit --help`": ("overheads", "studykit --help", "seconds", 0.501),
    "a notebook with its defaults": ("notebooks", "slowest", "seconds", 90.1),
    "what a worker adds": ("workers", "work", "seconds_per_cell", 3.01),
    "two workers' time": ("workers", "two workers", "seconds", 11.1),
    "a notebook of one cell": ("overheads", "notebook, imports", "seconds", 5.01),
    "from an index to the first step, seconds": ("pools", "first step", "seconds", 60.1),
    "from an index to the first step, peak": ("pools", "first step", "gib", 2.01),
    "file operations to take a cell": ("shared_folder", "all settings", "most_operations_to_take", 11),
    "cells that end twice": ("shared_folder", "all settings", "not_once", 1),
}
POINTS = [
    {"signal": signal, "tokens": t, "vocabulary": v, "k": k, "medians": {"seconds": t * v * 1e-6, "gib": v * 1e-3}}
    for signal, t, v, k in [("hidden", 8, 10, 2), ("hidden", 16, 10, 2), ("hidden", 8, 20, 2), ("top_k", 8, 10, 4)]
]


@pytest.fixture
def write(tmp_path):
    """Return what writes one report with given medians, and a contestant that could not run."""

    def make(benchmark, found, name="tiny-cpu", **more):
        contestants = {c: {"repeats": 5, "medians": medians} for c, medians in found.items()}
        contestants["other"] = {"failed": "No module named 'other'"}
        machine = {"cpu": "Some CPU", "cores": 2, "memory_gib": 8.0, "instructions": ["avx512f"], "gpu": None}
        report = {
            "settings": {"layers": 2, "device": name.split("-")[-1]},
            "machine": machine,
            "threads": 1,
            "versions": {"torch": "2"},
        }
        report |= {"peers": {"torch": "3"}, "contestants": contestants, **more}
        (tmp_path / f"{benchmark}-{name}.json").write_text(json.dumps(report), encoding="utf-8")

    return make


def heads(devices: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of a report per device."""
    return {
        device: [
            {
                "loss": "jsd",
                "frozen_head": frozen,
                "contestants": {name: {"repeats": 5, "medians": medians} for name, medians in found.items()},
            }
            for frozen, found in lines.items()
        ]
        for device, lines in devices.items()
    }


def write_all(write: Any, figures: dict[str, Any] = FIGURES, devices: dict[str, Any] = HEADS) -> None:
    for benchmark, found in figures.items():
        write(benchmark, found)
    for device, lines in heads(devices).items():
        write("head", {}, name=f"tiny-{device}", lines=lines)


def verdicts(folder: Path) -> dict[str, str]:
    reports = read_reports(folder, "there")
    return {
        goal.title: goal.judge(next((r for r in reports.get(goal.benchmark, []) if goal.applies_to(r)), {}))
        for goal in GOALS
    }


def page_verdicts(folder: Path) -> list[str]:
    text = format_page(read_reports(folder, "there")).partition("## Goals")[2].partition("## ")[0]
    return [line.split(" | ")[4] for line in text.strip().splitlines()[2:]]


def step_verdicts(folder: Path) -> list[str]:
    text = format_page(read_reports(folder, "there")).partition("## Goals")[2].partition("## ")[0]
    return [line.split(" | ")[4] for line in text.strip().splitlines()[2:] if "kd with" in line or "of kd" in line]


def test_at_their_bounds_all_goals_are_met(write, tmp_path):
    write_all(write)

    assert set(verdicts(tmp_path).values()) == {"met"}
    assert page_verdicts(tmp_path) == ["met"] * len(GOALS)


def test_every_goal_is_tried():
    starts = [*WORSE, *(goal for *_, goal in WORSE_HEADS)]
    assert [goal.title for goal in GOALS if not any(goal.title.startswith(start) for start in starts)] == []


@pytest.mark.parametrize("change", WORSE_HEADS, ids=lambda change: change[-1])
def test_a_verdict_on_the_head_flips_when_its_number_does(change, write, tmp_path):
    device, frozen, contestant, key, value, goal = change
    changed = copy.deepcopy(HEADS)
    changed[device][frozen][contestant][key] = value
    write_all(write, devices=changed)

    (missed,) = [what for what, verdict in verdicts(tmp_path).items() if verdict == "missed"]
    assert missed.startswith(goal)
    assert page_verdicts(tmp_path).count("missed") == 1


@pytest.mark.parametrize("goal", [goal for goal in GOALS if goal.benchmark != "head"], ids=lambda goal: goal.title)
def test_a_verdict_flips_when_its_number_does(goal, write, tmp_path):
    (change,) = [change for start, change in WORSE.items() if goal.title.startswith(start)]
    benchmark, contestant, key, value = change
    changed = {name: dict(found) for name, found in FIGURES[benchmark].items()}
    changed[contestant][key] = value
    write_all(write, FIGURES | {benchmark: changed})

    assert [what for what, verdict in verdicts(tmp_path).items() if verdict == "missed"] == [goal.title]
    assert page_verdicts(tmp_path).count("missed") == 1


def test_nothing_measured_is_neither_met_nor_missed(tmp_path):
    assert read_reports(tmp_path / "nowhere", "there") == {}
    assert page_verdicts(tmp_path / "nowhere") == ["not measured"] * len(GOALS)


def test_a_contestant_that_did_not_run_decides_nothing(write, tmp_path):
    found = {name: f for name, f in FIGURES["step"].items() if name != "trl GKDTrainer"}
    write("step", found)

    assert step_verdicts(tmp_path) == ["met", "not measured"]


def test_every_report_has_its_verdict_and_its_table(write, tmp_path):
    slow = FIGURES["step"] | {"studykit kd, cached teacher": {"seconds": 1.5}}
    write("step", FIGURES["step"], peak_flops_per_s=2e12)
    write("step", slow, name="tiny-cuda")

    text = format_page(read_reports(tmp_path, "there"))

    assert step_verdicts(tmp_path) == ["met", "missed", "met", "met"]
    assert "### tiny, cpu" in text
    assert "### tiny, cuda" in text
    assert "| studykit kd, live teacher | 5 | 2 | 60 | - | - | - | 2 |" in text
    assert "not run: No module named 'other'" in text
    assert "[`step-tiny-cpu.json`](there/step-tiny-cpu.json); Some CPU, 2 cores, 8.0 GiB" in text
    assert "peers: torch 3" in text
    assert "Matrix peak: 2 TFLOP/s." in text


def test_the_tables_of_head_and_cost(write, tmp_path):
    found = {"plain": {"seconds": 0.25, "gib": 4.0, "loss": 3}, "studykit": {"seconds": 0.5, "gib": 2.0, "loss": 3}}
    (line,) = heads({"cpu": {True: found}})["cpu"]
    line["contestants"]["liger"] = {"failed": "no GPU"}
    fit = {"signal": "top_k", "axis": "k", "figure": "seconds", "at_zero": 0.002, "slope": 0.00003, "r2": 0.99}
    memory = fit | {"figure": "gib", "at_zero": 0.5, "slope": 0.001}
    write("head", {}, lines=[line])
    write("cost", {}, points=POINTS, fits=[fit, memory])

    text = format_page(read_reports(tmp_path, "there"))

    assert "| jsd | frozen | plain | 0.25 | 0.5 | 4 | 2 | 3 |" in text
    assert "| jsd | frozen | studykit | 0.5 | 1 | 2 | 1 | 3 |" in text
    assert "| jsd | frozen | liger | not run: no GPU |" in text
    assert "| top_k | k | ms | 2 | 30 | 0.99 |" in text
    assert "| top_k | k | MiB | 512 | 1,024 | 0.99 |" in text
    assert "(there/cost-tiny-cpu.svg)" in text


def test_the_page_counts_how_wrong_inputs_ended(write, tmp_path):
    found = {"endings": {"accepted": 30, "refused": 1970, "exception": 2}, "faults": {"KeyError in pin": 2}}
    write("faults", {}, tried={"specifications": found, "files": {"endings": {"refused": 5}, "faults": {}}})
    text = format_page(read_reports(tmp_path, "there"))
    assert "| specifications | 2,002 | 30 | 1,970 | 0 | 2 | 0 |" in text
    assert "| files | 5 | 0 | 5 | 0 | 0 | 0 |" in text
    assert "Places of the faults: KeyError in pin (2)." in text


def test_the_figure_of_the_cost_is_drawn_beside_the_report(write, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("plotly.graph_objects.Figure.write_image", lambda figure, file, **_: drawn.append(Path(file)))
    write("cost", {}, points=POINTS, fits=[])

    draw_figures(read_reports(tmp_path, "there"), tmp_path)

    assert drawn == [tmp_path / "cost-tiny-cpu.svg"]


def test_the_cost_is_drawn_along_each_axis_from_the_points_on_it():
    failed = {"signal": "top_k", "tokens": 99, "vocabulary": 10, "k": 2, "failed": "no memory"}
    figure: Any = draw_cost([*POINTS, failed])

    lines = {(t.name, t.xaxis, t.yaxis): (list(t.x), list(t.y)) for t in figure.data}

    assert lines["teacher's hidden", "x", "y"] == ([8, 16], pytest.approx([8e-5, 16e-5]))
    assert lines["teacher's hidden", "x2", "y2"] == ([10, 20], pytest.approx([8e-5, 16e-5]))
    assert lines["teacher's hidden", "x5", "y5"] == ([10, 20], pytest.approx([0.01, 0.02]))
    assert lines["teacher's top k", "x3", "y3"] == ([4], pytest.approx([8e-5]))


@pytest.mark.parametrize("benchmark", FIGURES)
def test_the_scripts_measure_the_contestants_of_the_goals(benchmark):
    script = (ROOT / "benchmarks" / f"{benchmark}.py").read_text(encoding="utf-8")
    for contestant in FIGURES[benchmark]:
        assert f'"{contestant}":' in script


def test_the_committed_page_has_a_verdict_for_every_goal():
    (page,) = [page for page in PAGES if page.file == "docs/benchmarks.md"]
    text = page.generated()

    for goal in GOALS:
        assert f"| {goal.title} |" in text
