"""The cells of batches: parameters, status, executed notebook and log of each."""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pandas as pd

from studykit.files import json_object
from studykit.errors import InputError
from studykit.files import is_locked, read_lines, replacing, try_lock, write_json
from studykit.spec import Lora, Part, RunSpec, Stage
from studykit.scorers import SCORERS


def cells(study_folder: str | Path) -> list[dict[str, Any]]:
    """Return the cells of all batches of a study: parameters, status, run ids, folder."""
    found = []
    for folder in sorted((Path(study_folder) / "cells").glob("*")):
        try:
            cell = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        try:
            cell |= json.loads((folder / "record.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            cell["status"] = "running" if is_locked(folder / "lock") else "stale"
        found.append({**cell, "folder": str(folder)})
    return found


def read_notebook(cell_folder: str | Path) -> list[dict[str, Any]]:
    """Return the cells of a batch cell's executed notebook, texts joined; none while there is no notebook.

    Each has `cell_type`, `source` and, for code, `outputs` in the notebook format's own words.

    Raises:
        InputError: the file is there and is no notebook.
    """
    file = Path(cell_folder) / "notebook.ipynb"
    try:
        found = json_object(json.loads(file.read_text(encoding="utf-8")))["cells"]
        return [{**cell, "source": _text(cell["source"]), "outputs": _outputs(cell)} for cell in found]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is no executed notebook ({error!r}): run its cell again") from None


def read_log(cell_folder: str | Path, last_bytes: int = 20_000) -> str:
    """Return the end of a batch cell's log; empty while there is none."""
    try:
        return (Path(cell_folder) / "log.txt").read_bytes()[-last_bytes:].decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _text(value: str | list[str]) -> str:
    """Join a notebook's text, kept as one text or as lines."""
    return value if isinstance(value, str) else "".join(value)


def _outputs(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a notebook cell's outputs with their texts joined; what is JSON by itself stays."""
    joined = []
    for output in cell.get("outputs", []):
        data = {kind: _text(v) if kind.startswith("text/") else v for kind, v in output.get("data", {}).items()}
        joined.append({**output, "text": _text(output.get("text", "")), "data": data})
    return joined
