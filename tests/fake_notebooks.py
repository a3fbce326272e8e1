"""Notebooks that do next to nothing, in a separate folder, for tests of the machinery around notebooks."""

import json
import os
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from studykit.batch import notebooks

PARAMETERS = """\
number = 0
rate = 0.5
flag = False
options = {}
tasks = ["one"]
nothing = None
place = ""
study = "fake"
results = "../results"
"""
MARKER = "STUDYKIT_TEST_MARKER"
PATIENCE_S = 300.0
"""Longer than any wait takes, on a machine with a lot else to do; a test that waits so long has failed."""


def trains(path: Path) -> bool:
    """Whether a shipped notebook has arms; one that only reads results has none."""
    return notebooks.tagged_source(path, "arms").partition("#")[0].strip() != "arms = {}"


def write_notebook(folder: Path, name: str, code: str = "", parameters: str = PARAMETERS, arms: str = "") -> Path:
    """Write a notebook with the two tagged cells and one that runs `code`."""
    cells = [new_markdown_cell("# A notebook"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(arms or "arms = {}", metadata={"tags": ["arms"]}), new_code_cell(code)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.ipynb").write_text(nbformat.writes(new_notebook(cells=cells)), encoding="utf-8")
    return folder / f"{name}.ipynb"


def write_batch(folder: Path, name: str, entries: Any) -> Path:
    """Write a grid; text is written as it is."""
    file = folder / "batches" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(entries if isinstance(entries, str) else yaml.safe_dump(entries), encoding="utf-8")
    return file


def everything_under(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its content, to show that nothing was written."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def marked(marker: str) -> list[psutil.Process]:
    """Return the living processes that carry a marker in their environment: all descendants do, even adopted ones."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARKER) == marker:
                found.append(process)
        except psutil.Error:
            continue
    return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def wait_for(what: Any, seconds: float = PATIENCE_S) -> Any:
    """Call until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return answer


def read_record(folder: Path) -> dict[str, Any]:
    """Return a cell's final record."""
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))
