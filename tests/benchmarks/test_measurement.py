"""How the benchmarks measure: turns, medians, reasons of failure, and the peak memory of the measured work alone."""

import json
import sys

import pytest

from benchmarks import measurement


@pytest.fixture
def python(tmp_path):
    """Return what makes a command out of code that sees the folder of the test as `folder`."""

    def make(code):
        return [sys.executable, "-c", f"folder = {str(tmp_path)!r}\n{code}"]

    return make


COUNTED = """
import json, pathlib
turns = pathlib.Path(folder) / "turns"
seen = turns.read_text() if turns.exists() else ""
turns.write_text(seen + NAME)
print("a line before the numbers")
print(json.dumps({"seconds": [5, 1, 3][seen.count(NAME)]}))
"""


def test_contestants_take_turns_and_the_median_is_reported(python, tmp_path):
    found = measurement.run_in_turns({name: python(f"NAME = {name!r}{COUNTED}") for name in "ab"}, 3)

    assert (tmp_path / "turns").read_text() == "ababab"
    assert found["a"] == {
        "repeats": 3,
        "medians": {"seconds": 3},
        "all": [{"seconds": 5}, {"seconds": 1}, {"seconds": 3}],
    }


def test_functions_take_turns_too_and_one_that_fails_is_reported_with_its_reason():
    seen = []

    def work(name, fails=False):
        seen.append(name)
        if fails:
            raise ImportError("no such peer\nin many lines")
        return {"seconds": float(len(seen))}

    found = measurement.call_in_turns(
        {"a": lambda: work("a"), "b": lambda: work("b", fails=True), "c": lambda: work("c")}, 3
    )

    assert seen == ["a", "b", "c", "a", "c", "a", "c"]
    assert found["a"]["medians"] == {"seconds": 4.0}
    assert found["b"] == {"failed": "ImportError: no such peer"}


def test_a_contestant_that_cannot_run_is_reported_with_its_reason_and_stops_no_other(python):
    whole = python("print('{\"seconds\": 2}')")
    commands = {
        "without": python("import a_package_that_nobody_has"),
        "whole": whole,
        "killed": python("import os; os.kill(os.getpid(), 9)"),
        "refuses": python("import sys; sys.exit('needs CUDA')"),
    }

    found = measurement.run_in_turns(commands, 2)

    assert found["without"] == {"failed": "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"}
    assert found["killed"] == {"failed": "ended with -9"}
    assert found["refuses"] == {"failed": "needs CUDA"}
    assert found["whole"]["repeats"] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_that_of_the_measured_work(python):
    code = """
import json
from benchmarks import measurement
earlier = bytearray(b"x" * (600 << 20))
del earlier
held = bytearray(b"x" * (50 << 20))
print(json.dumps(measurement.measure_work(lambda: bytearray(100 << 20).extend(b"x"), "cpu")))
"""
    found = measurement.run_in_turns({"some": python(code)}, 1)["some"]

    assert 0.09 < found["medians"]["gib"] < 0.25  # 100 MiB, copied at most once as it grows; 600 were held before


def test_a_report_has_machine_and_versions_and_no_date(monkeypatch, tmp_path):
    monkeypatch.setattr(measurement, "ROOT", tmp_path)
    monkeypatch.setattr(measurement, "OUT", tmp_path / "out")
    monkeypatch.setattr(
        measurement, "_describe", lambda python: {"versions": {"torch": "2"}, "threads": 1, "gpu": None}
    )

    file = measurement.write_report("step", "tiny-cpu", {"layers": 1}, contestants={})

    report = json.loads(file.read_text(encoding="utf-8"))
    assert file.name == "step-tiny-cpu.json"
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["memory_gib"] > 0
    assert report["peers"] == {"torch": "2"}
    assert not [key for key in report if "date" in key or "time" in key]
